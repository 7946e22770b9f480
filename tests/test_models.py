import pytest
import torch
from torch import nn

from equibit import models
from equibit.errors import InputError
from equibit.models import resnet
from equibit.models.resnet import BirealBlock, ReluBlock

USUAL = {
    "conv2": (3, 32, 32),
    "digits_net": (1, 8, 8),
    "lenet5": (1, 28, 28),
    "resnet18": (3, 32, 32),
}
PARAMETERS = {
    "conv2": 4_300_992,
    # 32*9 + 64*32*9 + 64*64*9 + 256*128, batch norms 2*(32+64+64+128), head 1290
    "digits_net": 288 + 18_432 + 36_864 + 32_768 + 576 + 1_290,
    # 32*25 + 64*32*25 + 1024*512, batch norms 2*(32+64+512), head 5130
    "lenet5": 800 + 51_200 + 524_288 + 1_216 + 5_130,
    "resnet18": 11_173_962,
}
MINIMUM = {"conv2": 2, "digits_net": 4, "lenet5": 16, "resnet18": 8}
VARIANTS = [
    ("conv2", {}),
    ("digits_net", {}),
    ("lenet5", {}),
    ("resnet18", {"block": "relu"}),
    ("resnet18", {"block": "bireal"}),
]


@pytest.fixture
def narrow(monkeypatch):
    """Residual networks of an eighth of the width, for tests of their structure."""
    monkeypatch.setattr(resnet, "WIDTHS", (8, 16, 32, 64))


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def images(in_shape, batch=2):
    return torch.randn(batch, *in_shape, generator=torch.Generator().manual_seed(0))


def test_every_model_is_covered_here():
    assert models.list() == sorted(USUAL) == sorted(PARAMETERS) == sorted(MINIMUM)
    assert {name for name, _ in VARIANTS} == set(models.list())
    assert [entry.name for entry in models.entries()] == models.list()


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_parameters_and_shape(name, options):
    model = models.create(name, in_shape=USUAL[name], **options)
    assert count(model) == PARAMETERS[name]
    assert model(images(USUAL[name])).shape == (2, 10)


def test_defaults_are_cifar(narrow):
    assert models.create("resnet18")(images((3, 32, 32))).shape == (2, 10)
    assert isinstance(models.create("resnet18").stages[0][0], ReluBlock)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@pytest.mark.parametrize("size", [(0, 0), (1, 3), (5, 2), (7, 13)])
def test_odd_shapes(name, options, size, narrow):
    in_shape = (2, MINIMUM[name] + size[0], MINIMUM[name] + size[1])
    model = models.create(name, num_classes=3, in_shape=in_shape, **options)
    assert model(images(in_shape, batch=3)).shape == (3, 3)


@pytest.mark.parametrize("name", sorted(USUAL))
@pytest.mark.parametrize("axis", [1, 2])
def test_too_small(name, axis):
    in_shape = [1, 64, 64]
    in_shape[axis] = MINIMUM[name] - 1
    with pytest.raises(InputError, match=f"{name}.* at least {MINIMUM[name]}x{MINIMUM[name]} pixels, not"):
        models.create(name, in_shape=in_shape)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_gradient_reaches_every_parameter(name, options, narrow):
    torch.manual_seed(0)
    model = models.create(name, in_shape=USUAL[name], **options)
    nn.functional.cross_entropy(model(images(USUAL[name], 4)), torch.tensor([0, 1, 2, 3])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_deterministic_under_a_seed(name, options, narrow):
    torch.manual_seed(3)
    first = models.create(name, in_shape=USUAL[name], **options).state_dict()
    torch.manual_seed(3)
    second = models.create(name, in_shape=USUAL[name], **options).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_initial_logits_are_moderate(name, options, narrow):
    torch.manual_seed(0)
    model = models.create(name, in_shape=USUAL[name], **options)
    assert 0.1 < model(images(USUAL[name], 16)).std() < 10


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_the_first_layer_is_a_convolution_and_the_last_the_head(name, options, narrow):
    model = models.create(name, in_shape=USUAL[name], **options)
    layers = [(key, module) for key, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert isinstance(layers[0][1], nn.Conv2d)
    assert layers[-1][0] == "head"
    normalised = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    for key, layer in layers[:-1]:
        assert layer.bias is None, key
    assert (layers[-1][1].bias is not None) == normalised


def modules_before_convolutions(model, in_shape):
    """For each convolution of the residual blocks, whether its input has a negative value."""
    negative = {}

    def record(name):
        return lambda module, inputs: negative.__setitem__(name, bool((inputs[0] < 0).any()))

    for name, module in model.stages.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(record(name))
    model(images(in_shape))
    return negative


@pytest.mark.parametrize(("stem", "size"), [("cifar", 32), ("imagenet", 64)])
def test_no_relu_before_a_bireal_convolution(stem, size, narrow):
    in_shape = (3, size, size)
    torch.manual_seed(0)
    bireal = models.create("resnet18", in_shape=in_shape, block="bireal", stem=stem)
    negative = modules_before_convolutions(bireal, in_shape)
    assert len(negative) == 19
    assert all(negative.values())
    assert not any(isinstance(module, nn.ReLU) for module in bireal.modules())
    ordinary = models.create("resnet18", in_shape=in_shape, block="relu", stem=stem)
    assert not any(modules_before_convolutions(ordinary, in_shape).values())


def test_blocks_follow_their_formula():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6, 6)
    relu = ReluBlock(8, 16, 2).eval()
    inner = relu.bn2(relu.conv2(torch.relu(relu.bn1(relu.conv1(x)))))
    assert torch.equal(relu(x), torch.relu(inner + relu.downsample(x)))
    bireal = BirealBlock(8, 16, 2).eval()
    x1 = bireal.bn1(bireal.conv1(x)) + bireal.downsample(x)
    assert torch.equal(bireal(x), bireal.bn2(bireal.conv2(x1)) + x1)
    pooled = nn.functional.avg_pool2d(x, 2)
    assert torch.equal(bireal.downsample(x), bireal.downsample.bn(bireal.downsample.conv(pooled)))
    same = BirealBlock(8, 8, 1)
    assert same.downsample(x) is x


def test_shortcuts_are_named(narrow):
    for block in ("relu", "bireal"):
        model = models.create("resnet18", block=block)
        ones = [name for name, module in model.named_modules() if getattr(module, "kernel_size", 0) == (1, 1)]
        assert ones == [f"stages.{stage}.0.downsample.conv" for stage in (1, 2, 3)]


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


def test_imagenet_resnet18_has_the_published_size():
    model = models.create("resnet18", num_classes=1000, in_shape=(3, 224, 224))
    assert count(model) == 11_689_512


def test_wrong_names_options_and_values():
    with pytest.raises(InputError, match=r"unknown model 'lenet'. Did you mean 'lenet5'\? Known: conv2, digits_net"):
        models.create("lenet")
    with pytest.raises(InputError, match=r"unknown option of resnet18 'blok'. Did you mean 'block'\?"):
        models.create("resnet18", blok="relu")
    with pytest.raises(InputError, match=r"unknown option of lenet5 'block'. Known: none"):
        models.create("lenet5", in_shape=(1, 28, 28), block="relu")
    with pytest.raises(InputError, match=r"unknown block of resnet18 'bi_real'. .* Known: bireal, relu"):
        models.create("resnet18", block="bi_real")
    with pytest.raises(InputError, match=r"unknown stem of resnet18 None"):
        models.create("resnet18", stem=None)


@pytest.mark.parametrize("in_shape", [(3, 32), (3, 32, 32, 1), (0, 32, 32), (3, -32, 32), (3, 32.0, 32), 32, None])
def test_wrong_in_shape(in_shape):
    with pytest.raises(InputError, match="expected three positive integers"):
        models.create("conv2", in_shape=in_shape)


@pytest.mark.parametrize("num_classes", [0, -1, 2.0, "10", True, None])
def test_wrong_num_classes(num_classes):
    with pytest.raises(InputError, match=r"num_classes=.*: expected a positive integer"):
        models.create("conv2", num_classes=num_classes)
