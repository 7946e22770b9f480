"""Shipped recipes at work: two steps on random images, then packed, exported and verified; the networks made narrow.

Every pair of network family and method family trains and packs; a few, in which each method occurs, are exported too.
`make test-recipes` takes all recipes (without their short forms) all the way.
"""

from dataclasses import replace

import pytest
import torch
from narrow import narrow_networks
from torch import nn
from torch.nn.functional import cross_entropy

import equibit as eb
from equibit import models, recipes
from equibit.packed import packed_layers
from equibit.training import optimizers, schedules
from equibit.training.schedules import Position

FAMILIES = {  # of networks
    **{f"conv{depth}": "conv" for depth in (2, 4, 6, 8)},
    **dict.fromkeys(("resnet18", "resnet20", "resnet34"), "resnet"),
    **dict.fromkeys(("vgg16", "vgg_small"), "vgg"),
    **dict.fromkeys(("wrn_20_10", "wrn_28_10"), "wide_resnet"),
}
NAMES = [name for name in recipes.list() if not name.endswith("-short")]
BATCH = 8


def pair(name):
    """The families of a recipe's network and method."""
    _, model, method, *_ = name.split("-")
    return FAMILIES.get(model, model), method.split(".")[0]


PAIRS = {pair(name): name for name in reversed(NAMES)}  # the first of each: 1w1a before 1w32a
EXPORTED = [
    PAIRS[key]
    for key in (
        ("conv", "multi_prize"),
        ("lenet5", "group_transform"),
        ("mobilenet_v1", "bi_half"),
        ("nin", "float"),
        ("resnet", "recu"),
        ("resnet", "reste"),
        ("shufflenet", "ir_net"),
        ("vgg", "adabin"),
        ("vgg", "siman"),
        ("wide_resnet", "sign"),
    )
]


def test_every_family_is_here():
    assert len(NAMES) == 235
    assert len(PAIRS) == 62
    assert {method for _, method in PAIRS} == {"float", *eb.methods.list()}
    assert {family for family, _ in PAIRS} == {FAMILIES.get(name, name) for name in models.list()}
    elsewhere = {"digits_net", "inception_v3"}  # test_methods_end_to_end.py; slow here
    assert {pair(name)[0] for name in EXPORTED} == {family for family, _ in PAIRS} - elsewhere
    assert {pair(name)[1] for name in EXPORTED} == {"float", *eb.methods.list()}


def small(name):
    """The recipe, with images of 96 pixels in place of 224: the smallest that get the ImageNet stem."""
    recipe = recipes.load(name)
    channels, height, _ = recipe.model.in_shape
    side = min(height, 96)
    return replace(recipe, model=replace(recipe.model, in_shape=(channels, side, side)))


def train(recipe, x):
    """The recipe's network after its first step and its last."""
    torch.manual_seed(0)
    model = recipes.build(recipe).train()
    optimizer = optimizers.create(recipe.optimizer, model)
    epochs, labels = recipe.train.epochs, torch.arange(BATCH) % recipe.model.num_classes
    for position in (Position(0, 0, 2), Position(epochs - 1, 1, 2)):
        eb.advance(model, schedules.method_progress(recipe.schedule, epochs, position))
        factor = schedules.lr_factor(recipe.schedule, epochs, position)
        optimizers.set_lr(optimizer, recipe.optimizer.lr * factor)
        optimizer.zero_grad()
        loss = cross_entropy(model(x), labels, label_smoothing=recipe.train.label_smoothing)
        assert torch.isfinite(loss)
        loss.backward()
        optimizer.step()
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        eb.recalibrate_batchnorm(model, [x])  # two steps are too few for the running statistics of deep networks
    return model.eval()


def trained(name):
    recipe = small(name)
    x = torch.randn(BATCH, *recipe.model.in_shape, generator=torch.Generator().manual_seed(0))
    return train(recipe, x), x


@pytest.fixture
def narrow(monkeypatch):
    narrow_networks(monkeypatch)


@pytest.mark.parametrize("name", sorted(PAIRS.values()))
def test_trains_and_packs(name, narrow):
    model, x = trained(name)
    recipe = recipes.load(name)
    with torch.no_grad():
        expected = model(x)
    assert torch.isfinite(expected).all()
    if recipe.method is None:
        return
    packed = eb.pack(model)
    assert_same_bits(model, packed)
    with torch.no_grad():
        found = packed(x)
    if recipe.activation is None:  # where activations are binary, one rounding may turn a sign
        # the sums of float32 layers in another order of memory: 1e-7 each, and at most 95 layers
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


def assert_same_bits(model, packed):
    bits = eb.binary_weights(model)
    layers = list(packed_layers(packed))
    assert len(layers) == len(bits)
    for key, layer in layers:
        assert torch.equal(layer.binary(), bits[f"{key}.weight"].to(torch.int8)), key


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in EXPORTED else pytest.mark.slow) for name in NAMES]
)
def test_trains_packs_exports_and_verifies(name, narrow, tmp_path):
    model, x = trained(name)
    assert torch.isfinite(model(x)).all()
    eb.export_onnx(model, tmp_path / "m.onnx", x)
    check = eb.verify_onnx(model, tmp_path / "m.onnx", x)
    assert check.ok, check


@pytest.mark.parametrize("asked", [False, True])
def test_l2_reaches_latents_whose_method_forbids_it_only_when_asked(asked):
    changes = {"method.name": "siman", "optimizer.weight_decay": 5e-4, "optimizer.decay_latents": asked}
    recipe = recipes.override(recipes.load("digits-digits_net-bi_half-1w32a"), changes)
    model = recipes.build(recipe)
    groups = optimizers.create(recipe.optimizer, model).param_groups
    assert [group["weight_decay"] for group in groups] == [5e-4, 5e-4 if asked else 0.0]
    latents = {id(p) for name, p in model.named_parameters() if name.endswith("weight.original")}
    assert len(latents) == 3
    assert latents < {id(p) for p in groups[1]["params"]}
