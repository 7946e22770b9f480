"""The residual networks: blocks, shortcuts, stems and sizes of every kind."""

from functools import partial

import pytest
import torch
from narrow import narrow_networks
from torch import nn

from equibit import models
from equibit.errors import InputError
from equibit.models import resnet
from equibit.models.resnet import EqualBitsBlock, OneSkipBlock, TwoSkipBlock
from equibit.models.wide_resnet import WideBlock

BLOCKS = ("relu", "hardtanh", "prelu", "bireal", "bireal_hardtanh", "bireal_prelu", "equal_bits")
CIFAR = {"resnet18": 11_173_962, "resnet34": 21_282_122}  # parameters of He et al., 10 classes
IMAGENET = {"resnet18": 11_689_512, "resnet34": 21_797_672}  # 1000 classes


@pytest.fixture
def narrow(monkeypatch):
    narrow_networks(monkeypatch)


def test_every_kind_is_covered_here():
    assert tuple(resnet.BLOCKS) == BLOCKS


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def images(in_shape, batch=2):
    return torch.randn(batch, *in_shape, generator=torch.Generator().manual_seed(0))


OUTPUTS = {  # the channels of all blocks, added up
    "resnet18": 2 * (64 + 128 + 256 + 512),
    "resnet34": 3 * 64 + 4 * 128 + 6 * 256 + 3 * 512,
}


@pytest.mark.parametrize("name", sorted(OUTPUTS))
@pytest.mark.parametrize(
    ("block", "slopes", "neck"),  # PReLU modules in a block; channels of the batch norm before the head
    [
        ("relu", 0, 0),
        ("hardtanh", 0, 512),
        ("prelu", 2, 0),
        ("bireal", 0, 0),
        ("bireal_hardtanh", 0, 512),
        ("bireal_prelu", 2, 512),
        ("equal_bits", 1, 0),
    ],
)
def test_parameters_of_the_blocks(name, block, slopes, neck):
    extra = slopes * OUTPUTS[name] + (64 if slopes else 0) + 2 * neck
    with torch.device("meta"):
        assert count(models.create(name, block=block)) == CIFAR[name] + extra
        large = models.create(name, num_classes=1000, in_shape=(3, 224, 224), block=block)
    assert count(large) == IMAGENET[name] + extra


@pytest.mark.parametrize(
    ("block", "slopes"),
    [("relu", 0), ("hardtanh", 0), ("prelu", 2), ("bireal", 0), ("bireal_hardtanh", 0), ("bireal_prelu", 2)],
)
def test_parameters_of_resnet20(block, slopes):
    extra = slopes * 3 * (16 + 32 + 64) + (16 if slopes else 0)
    assert count(models.create("resnet20", block=block)) == 269_722 + 2 * 64 + extra


def test_defaults_are_cifar(narrow):
    assert models.create("resnet18")(images((3, 32, 32))).shape == (2, 10)
    assert isinstance(models.create("resnet18").stages[0][0].act1, nn.ReLU)


def block(kind, inputs, outputs, stride):
    torch.manual_seed(0)
    made = resnet.BLOCKS[kind].build(inputs, outputs, stride)
    for module in made.modules():  # so that a norm or a slope in the wrong place shows
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.running_mean)
        elif isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0.1, 0.9)
    return made.eval()


FUNCTIONS = {"relu": torch.relu, "hardtanh": nn.functional.hardtanh, "bireal": lambda x: x}


@pytest.mark.parametrize("kind", ["relu", "hardtanh", "prelu"])
def test_one_skip_blocks_follow_their_formula(kind):
    x = torch.randn(2, 8, 6, 6)
    made = block(kind, 8, 16, 2)
    first = FUNCTIONS.get(kind, made.act1)
    second = FUNCTIONS.get(kind, made.act2)
    x1 = first(made.bn1(made.conv1(x)))
    assert torch.equal(made(x), second(made.bn2(made.conv2(x1)) + made.downsample(x)))
    assert isinstance(made, OneSkipBlock)
    assert not isinstance(made, TwoSkipBlock)


@pytest.mark.parametrize("kind", ["bireal", "bireal_hardtanh", "bireal_prelu"])
def test_two_skip_blocks_follow_their_formula(kind):
    x = torch.randn(2, 8, 6, 6)
    made = block(kind, 8, 16, 2)
    first = FUNCTIONS.get(kind.removeprefix("bireal_"), made.act1)
    second = FUNCTIONS.get(kind.removeprefix("bireal_"), made.act2)
    x1 = first(made.bn1(made.conv1(x)) + made.downsample(x))
    assert torch.equal(made(x), second(made.bn2(made.conv2(x1)) + x1))


def test_equal_bits_block_follows_its_formula():
    x = torch.randn(2, 8, 6, 6)
    made = block("equal_bits", 8, 16, 2)
    (slopes,) = (module.weight for module in made.modules() if isinstance(module, nn.PReLU))
    x1 = made.bn1(nn.functional.prelu(made.conv1(x), slopes)) + made.downsample(x)
    assert torch.equal(made(x), made.bn2(nn.functional.prelu(made.conv2(x1), slopes)) + x1)
    assert isinstance(made, EqualBitsBlock)


def test_shortcuts_follow_their_formula():
    x = torch.randn(2, 8, 7, 6)
    weight = torch.randn(16, 8, 1, 1)

    def shortcut(build):
        made = build(8, 16, 2).eval()
        if hasattr(made, "conv"):
            nn.init.normal_(made.bn.running_mean)
            made.conv.weight.data = weight
        return made

    pool = partial(nn.functional.avg_pool2d, kernel_size=2, ceil_mode=True, count_include_pad=False)
    conv = partial(nn.functional.conv2d, weight=weight)
    made = shortcut(resnet.projected)
    assert torch.equal(made(x), made.bn(conv(x, stride=2)))
    made = shortcut(resnet.pooled_projected)
    assert torch.equal(made(x), made.bn(conv(pool(x))))
    made = shortcut(resnet.projected_pooled)
    assert torch.equal(made(x), pool(made.bn(conv(x))))
    made = shortcut(resnet.padded)
    assert torch.equal(made(x), torch.cat((x[:, :, ::2, ::2], torch.zeros(2, 8, 4, 3)), 1))
    assert not list(made.parameters())


def test_same_shape_needs_no_shortcut():
    x = torch.randn(2, 8, 5, 5)
    assert all(block(kind, 8, 8, 1).downsample(x) is x for kind in BLOCKS)
    assert all(WideBlock(8, 8, 1, projected=projected).downsample(x) is x for projected in (True, False))


@pytest.mark.parametrize("projected", [True, False])
def test_wide_block_follows_its_formula(projected):
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6, 6)
    made = WideBlock(8, 16, 2, projected=projected).eval()
    active = torch.relu(made.bn1(x))
    pooled = torch.cat((nn.functional.avg_pool2d(x, 2), torch.zeros(2, 8, 3, 3)), 1)
    skip = made.downsample(active) if projected else pooled
    assert torch.equal(made(x), made.conv2(torch.relu(made.bn2(made.conv1(active)))) + skip)
    assert isinstance(made.downsample, nn.Conv2d) == projected


def test_which_kind_has_which_parts():
    """Stem, shortcut and neck of every block, as the papers' networks have them."""
    found = {}
    with torch.device("meta"):
        for kind in BLOCKS:
            model = models.create("resnet18", block=kind)
            found[kind] = (
                type(model.stem.act),
                [type(part) for part in model.stages[1][0].downsample],
                hasattr(model, "bn"),
            )
    strided = [nn.Conv2d, nn.BatchNorm2d]
    assert found == {
        "relu": (nn.ReLU, strided, False),
        "hardtanh": (nn.Identity, strided, True),
        "prelu": (nn.PReLU, strided, False),
        "bireal": (nn.Identity, [nn.AvgPool2d, *strided], False),
        "bireal_hardtanh": (nn.Hardtanh, strided, True),
        "bireal_prelu": (nn.PReLU, strided, True),
        "equal_bits": (nn.PReLU, strided, False),
    }


def test_equal_bits_has_another_order_on_imagenet(narrow):
    model = models.create("resnet18", in_shape=(3, 96, 96), block="equal_bits")
    assert [name for name, _ in model.stem.named_children()] == ["conv", "act", "bn", "pool"]
    assert [name for name, _ in model.stages[1][0].downsample.named_children()] == ["conv", "bn", "pool"]
    assert model.stages[1][0].downsample.conv.stride == (1, 1)
    small = models.create("resnet18", block="equal_bits")
    assert [name for name, _ in small.stem.named_children()] == ["conv", "bn", "act"]


def test_resnet20_is_that_of_ir_net():
    weights_only = models.create("resnet20")
    assert isinstance(weights_only.stem.act, nn.Identity)
    assert [name for name, _ in weights_only.named_children()] == [
        "stem", "stages", "pool", "flatten", "bn", "act", "head"
    ]  # fmt: skip
    assert isinstance(weights_only.act, nn.ReLU)
    binary = models.create("resnet20", block="bireal_hardtanh")
    assert isinstance(binary.stem.act, nn.Hardtanh)
    assert isinstance(binary.act, nn.Identity)
    convolutions = [module for module in binary.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 19
    assert {module.kernel_size for module in convolutions} == {(3, 3)}


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
@pytest.mark.parametrize("kind", BLOCKS)
def test_shortcuts_are_named(name, kind, narrow):
    model = models.create(name, block=kind)
    ones = [name for name, module in model.named_modules() if getattr(module, "kernel_size", 0) == (1, 1)]
    assert ones == [f"stages.{stage}.0.downsample.conv" for stage in (1, 2, 3)]


def test_shortcuts_of_the_wide_networks(narrow):
    model = models.create("wrn_28_10")
    ones = [name for name, module in model.named_modules() if getattr(module, "kernel_size", 0) == (1, 1)]
    assert ones == [f"stages.{stage}.0.downsample" for stage in range(3)]
    model = models.create("wrn_20_10")
    assert not [p for name, p in model.named_parameters() if "downsample" in name]


@pytest.mark.parametrize(
    ("stem", "size", "kind"),
    [("auto", 95, "cifar"), ("auto", 96, "imagenet"), ("cifar", 96, "cifar"), ("imagenet", 32, "imagenet")],
)
def test_stems(stem, size, kind, narrow):
    model = models.create("resnet18", in_shape=(3, size, size), stem=stem)
    assert model.stem.conv.kernel_size == ((3, 3) if kind == "cifar" else (7, 7))
    side = model.stem(images((3, size, size), 1)).shape[2]
    assert side == (size if kind == "cifar" else -(-size // 4))


def test_imagenet_stem_needs_larger_images():
    with pytest.raises(InputError, match="resnet18 with the imagenet stem takes images of at least 32x32 pixels"):
        models.create("resnet18", in_shape=(3, 31, 40), stem="imagenet")
