"""A trained float network as the start of a binary one, in whichever order it is loaded and binarised."""

import pytest
import torch
from torch import nn

import equibit as eb
from equibit.layers import binary_layers
from equibit.methods import Method


class Stateful(Method):
    """A method with a learned scale and a buffer, both made from the weight, as SiMaN and multi-prize have."""

    key = "stateful"

    def attach(self, weight):
        self.alpha = nn.Parameter(weight.flatten(1).abs().mean(1))
        self.register_buffer("largest", weight.abs().max())

    def assign(self, latent):
        return torch.where(latent >= 0, 1.0, -1.0)

    def factors(self, latent, binary):
        return self.alpha, None


class Network(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 6, 3, groups=2))
        self.again = self.body[2]
        self.head = nn.Linear(6, classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


X = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(1))
METHODS = [eb.BiHalf(), eb.Sign(scale="mean_abs"), Stateful()]


def trained(seed=1):
    torch.manual_seed(seed)
    model = Network()
    model.body[1].running_mean.normal_()
    return model


def binarised(model, method, activation=None):
    eb.binarize_(model, method, skip=eb.nothing, activation=activation)
    return model


def test_the_latents_are_the_weights():
    model, weights = trained(), trained().state_dict()
    binarised(model, "bi_half")
    for layer in binary_layers(model):
        assert torch.equal(layer.latent, weights[f"{layer.name}.weight"])


@pytest.mark.parametrize("activation", [None, "bireal"])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.key)
@pytest.mark.parametrize("way", ["plain", "assign", "onto meta", "half", "module"])
def test_loading_then_binarising_is_binarising_then_loading(way, method, activation):
    checkpoint = trained().state_dict()
    if way == "half":
        checkpoint = {k: v.half() if v.is_floating_point() else v for k, v in checkpoint.items()}
    first = Network()
    first.load_state_dict(checkpoint)
    binarised(first, method, activation)
    second = binarised(Network(), method, activation)
    parameters = {id(p) for p in second.parameters()}
    if way == "module":  # as part of a larger network, whose checkpoint has a prefix
        outer = nn.ModuleDict({"module": second, "other": nn.Linear(2, 2)})
        full = {f"module.{k}": v for k, v in checkpoint.items()} | {"other.weight": torch.ones(2, 2)}
        result = outer.load_state_dict(full, strict=False)
        assert result.missing_keys == ["other.bias"]
        assert not result.unexpected_keys
    else:
        target = second.to("meta") if way == "onto meta" else second
        target.load_state_dict(checkpoint, assign=way in ("assign", "onto meta"))
    if way in ("plain", "half", "module"):
        assert {id(p) for p in second.parameters()} == parameters  # an optimiser made before still holds them
    wanted = first.state_dict()
    for name, value in second.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    assert torch.equal(second(X), first(X))
    assert not any("parametrizations" in name for name in checkpoint)  # the caller's dict is the caller's


def test_a_binary_checkpoint_keeps_the_state_it_holds():
    model = binarised(trained(), Stateful())
    with torch.no_grad():
        model.head.parametrizations.weight[0].method.alpha.fill_(7.0)
    again = binarised(Network(), Stateful())
    again.load_state_dict(model.state_dict())
    assert (again.head.parametrizations.weight[0].method.alpha == 7).all()


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.key)
def test_what_does_not_fit_is_reported_by_name(method):
    model, checkpoint = binarised(Network(), method), trained().state_dict()
    weight = checkpoint.pop("head.weight")
    with pytest.raises(RuntimeError, match=r"Missing key.*head\.parametrizations\.weight\.original"):
        model.load_state_dict(checkpoint)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*tail\.weight"):
        model.load_state_dict(checkpoint | {"head.weight": weight, "tail.weight": weight})
    with pytest.raises(RuntimeError, match=r"size mismatch for head\.parametrizations\.weight\.original"):
        model.load_state_dict(checkpoint | {"head.weight": weight[:, :5]})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*module\.head\.weight"):  # saved from a DDP wrapper
        model.load_state_dict({f"module.{name}": value for name, value in trained().state_dict().items()})
    both = model.state_dict() | {"head.weight": weight}
    with pytest.raises(RuntimeError, match=r"Unexpected key.*head\.weight"):
        model.load_state_dict(both)
