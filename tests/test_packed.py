"""pack: the same outputs, exact bits, and nothing else of the layer kept."""

import numpy as np
import pytest
import torch
from rounding import assert_rounding
from torch import nn

import equibit as eb
from equibit.errors import StateError
from equibit.methods import Method
from equibit.packed import packed_layers

# What torch says of a layer with such a kernel, before and after packing.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

GEOMETRIES = {
    "linear": (lambda: nn.Linear(70, 6), (3, 70)),
    "linear on a sequence, no bias": (lambda: nn.Linear(9, 6, bias=False), (2, 5, 9)),
    "conv1d grouped and dilated": (lambda: nn.Conv1d(4, 6, 3, groups=2, dilation=2), (2, 4, 9)),
    "conv1d same, even kernel": (lambda: nn.Conv1d(70, 4, 2, padding="same"), (2, 70, 6)),
    "conv2d strided": (lambda: nn.Conv2d(4, 6, (3, 5), 2, padding=(1, 2), groups=2), (2, 4, 9, 9)),
    "conv2d same, even kernel": (lambda: nn.Conv2d(3, 5, (4, 2), padding="same", dilation=(1, 3)), (2, 3, 8, 7)),
    "conv2d valid, no bias": (lambda: nn.Conv2d(3, 5, 2, padding="valid", bias=False), (2, 3, 4, 4)),
    "conv2d reflect": (lambda: nn.Conv2d(3, 5, 3, padding=2, padding_mode="reflect"), (2, 3, 6, 5)),
    "conv2d circular same": (lambda: nn.Conv2d(3, 5, 2, padding="same", padding_mode="circular"), (2, 3, 6, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 3, padding=1, bias=False), (2, 2, 4, 4, 4)),
    "conv3d same, even kernel": (lambda: nn.Conv3d(2, 4, (2, 3, 4), padding="same"), (2, 2, 4, 5, 4)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(70, 4, 3, stride=2, padding=1, output_padding=1), (2, 70, 5)),
    "transposed 2d grouped": (lambda: nn.ConvTranspose2d(4, 6, (3, 2), 2, (1, 0), 1, 2, dilation=(1, 2)), (2, 4, 5, 4)),
    "transposed 2d, no bias": (lambda: nn.ConvTranspose2d(3, 5, 3, bias=False), (2, 3, 4, 5)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 4, (2, 3, 2), stride=(1, 2, 3)), (2, 2, 3, 4, 3)),
}


class Offset(Method):
    """Two levels with an offset per filter, as AdaBin has them; in no registry."""

    key = "offset_for_tests"
    levels = "offset"

    def assign(self, latent):
        return torch.where(latent >= latent.flatten(1).mean(1).reshape(-1, *[1] * (latent.dim() - 1)), 1.0, -1.0)

    def factors(self, latent, binary):
        flat = latent.detach().flatten(1)
        return flat.std(dim=1), flat.mean(dim=1) + 0.5


METHODS = {
    "two levels": eb.BiHalf(0.3),
    "two levels, scale of the weights": eb.Sign(scale="mean_abs"),
    "two levels with an offset": Offset(),
    "three levels": eb.BiHalf(density=0.5),
    "three levels of the layer": eb.Sign(scale="mean_abs", density=0.4),
}


def binarised(geometry, method, pad_value=None):
    """A layer in eval mode and an input of it."""
    torch.manual_seed(0)
    make, shape = GEOMETRIES[geometry]
    layer, x = make(), torch.randn(shape)
    activation = None if pad_value is None else eb.activations.create("bireal", pad_value)
    eb.binarize_(layer, METHODS[method], skip=eb.nothing, activation=activation)
    return layer.eval(), x


class Network(nn.Module):
    """Float, two-level and three-level layers, batch norm, and one convolution registered and called twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.mix = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.again = self.mix
        self.flat = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.hidden = nn.Linear(32, 10)
        self.head = nn.Linear(10, 4)

    def forward(self, x):
        x = self.norm(self.mix(self.stem(x)))
        return self.head(self.hidden(self.flat(self.again(x))))


X = torch.randn(4, 3, 7, 7, generator=torch.Generator().manual_seed(1))


def network(seed=0, activation=None):
    torch.manual_seed(seed)
    model = Network()
    model.norm.running_mean.normal_()
    eb.binarize_(model, "bi_half", activation=activation, overrides={"hidden": eb.BiHalf(density=0.5)})
    return model


# --- pack ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad_value", [None, -1.0, 0.0, 1.0], ids=lambda p: "1w32a" if p is None else f"1w1a pad {p:+}")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_packed_outputs_equal(geometry, method, pad_value):
    """Bit for bit with torch's operators, which gradients need; within rounding on our kernels, which sum otherwise."""
    layer, x = binarised(geometry, method, pad_value)
    packed, expected = eb.pack(layer), layer(x)
    with torch.no_grad():
        assert_rounding(packed(x), expected)
    assert torch.equal(packed(x.requires_grad_()), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_bits_are_what_numpy_packs(geometry, method):
    layer, _ = binarised(geometry, method)
    packed, weight = eb.pack(layer), eb.binary_weights(layer)["weight"]
    filters = weight.numpy()
    if "transposed" in geometry:  # dim 1 of each group
        filters = np.concatenate([np.swapaxes(group, 0, 1) for group in np.split(filters, layer.groups)])
    rows = np.moveaxis(filters, 1, -1).reshape(len(filters), -1)  # channels fastest
    for plane, flags in ((packed.bits, rows > 0), (packed.mask, rows != 0)):
        if plane is None:
            assert (rows != 0).all()
            continue
        expected = np.packbits(flags, axis=1, bitorder="little")
        assert plane.dtype == torch.uint8
        assert plane.shape == (len(rows), 8 * -(-rows.shape[1] // 64))
        assert np.array_equal(plane[:, : expected.shape[1]].numpy(), expected)
        assert not plane[:, expected.shape[1] :].any()
    assert torch.equal(packed.binary(), weight.to(torch.int8))
    assert packed.scale.dtype == torch.float32


def test_golden_bytes_of_a_linear_layer():
    layer = nn.Linear(10, 2)
    with torch.no_grad():
        layer.weight[0] = torch.tensor([1.0, -1, -1, 0.5, -2, -1, -1, -3, 0.0, -0.0])  # zeros have the sign +1
        layer.weight[1] = torch.tensor([-1.0, 1, 1, 1, 1, 1, 1, 1, 1, -1])
    eb.binarize_(layer, "sign", skip=eb.nothing)
    packed = eb.pack(layer)
    assert bytes(packed.bits[0].tolist()) == bytes([0b00001001, 0b11, 0, 0, 0, 0, 0, 0])
    assert bytes(packed.bits[1].tolist()) == bytes([0b11111110, 0b01, 0, 0, 0, 0, 0, 0])
    assert packed.scale.tolist() == pytest.approx([0.2**0.5] * 2)  # sqrt(2 / fan_in)


def test_golden_bytes_of_a_pruned_convolution():
    layer = nn.Conv2d(3, 1, (1, 2), bias=False)
    with torch.no_grad():  # channel c, column k: [c][0][k]
        layer.weight[0] = torch.tensor([[[5.0, -4.0]], [[0.1, 3.0]], [[-2.0, 0.2]]])
    eb.binarize_(layer, eb.Sign(density=0.5), skip=eb.nothing)  # keeps 5, -4, 3
    packed = eb.pack(layer)
    # Order of a row: (k0 c0) (k0 c1) (k0 c2) (k1 c0) (k1 c1) (k1 c2) = 5, 0.1, -2, -4, 3, 0.2
    assert bytes(packed.bits[0].tolist()) == bytes([0b00010001, 0, 0, 0, 0, 0, 0, 0])
    assert bytes(packed.mask[0].tolist()) == bytes([0b00011001, 0, 0, 0, 0, 0, 0, 0])
    assert packed.binary().tolist() == [[[[1, -1]], [[0, 1]], [[0, 0]]]]


def test_pack_leaves_the_original_as_it_was_and_it_trains_on():
    model = network().train()
    model.head.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    packed = eb.pack(model)
    outputs = packed(X)
    assert model.training
    assert not model.head.training
    assert not any(module.training for module in packed.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    latent = model.mix.parametrizations.weight.original
    model(X).square().sum().backward()
    assert latent.grad.abs().sum() > 0
    with torch.no_grad():
        latent -= latent.grad
    assert not torch.equal(latent, before["mix.parametrizations.weight.original"])
    assert torch.equal(packed(X), outputs)


def test_packed_models_hold_bits_and_no_latents():
    packed = eb.pack(network())
    names = {name for name, _ in packed.named_parameters()}
    assert names == {f"{layer}.{part}" for layer in ("stem", "norm", "head") for part in ("weight", "bias")}
    state = packed.state_dict()
    sizes = {name: tuple(state[name].shape) for name in state if name.split(".")[0] in ("mix", "hidden")}
    # 8 * 9 weights take 2 words, 32 weights one.
    hidden = {"hidden.bits": (10, 8), "hidden.mask": (10, 8), "hidden.scale": (10,), "hidden.bias": (10,)}
    assert sizes == {"mix.bits": (8, 16), "mix.scale": (8,)} | hidden
    assert "method='bi_half', levels='three'" in repr(packed.hidden)


def test_a_layer_registered_twice_is_packed_once():
    packed = eb.pack(network())
    assert packed.mix is packed.again
    assert [name for name, _ in packed_layers(packed)] == ["mix", "hidden"]


def test_a_layer_can_be_the_whole_model():
    layer, x = binarised("conv2d strided", "two levels")
    packed = eb.pack(layer)
    assert [name for name, _ in packed_layers(packed)] == [""]
    assert_rounding(packed(x), layer(x))


def test_float64_and_bfloat16():
    model, x = network().eval(), X.double()
    # A packed scale is float32: half an eps of float32, 6e-8, per layer.
    torch.testing.assert_close(eb.pack(model.double())(x), model(x), rtol=1e-6, atol=1e-6)
    assert eb.pack(model)(x).dtype == torch.float64
    with torch.no_grad():
        for model, x in ((network().eval(), X), binarised("linear", "two levels with an offset")):
            assert torch.equal(eb.pack(model.bfloat16())(x.bfloat16()), model(x.bfloat16()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(eb.pack(network())(X), network().eval()(X))


def test_packing_a_float_model_is_an_error():
    with pytest.raises(StateError, match="binarize_"):
        eb.pack(nn.Linear(2, 2))
