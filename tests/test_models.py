import math

import pytest
import torch
from narrow import narrow_networks
from torch import nn

import equibit as eb
from equibit import models
from equibit.errors import InputError

USUAL = {
    "conv2": (3, 32, 32),
    "conv4": (3, 32, 32),
    "conv6": (3, 32, 32),
    "conv8": (3, 32, 32),
    "digits_net": (1, 8, 8),
    "inception_v3": (3, 32, 32),
    "lenet5": (1, 28, 28),
    "mobilenet_v1": (3, 32, 32),
    "nin": (3, 32, 32),
    "resnet18": (3, 32, 32),
    "resnet20": (3, 32, 32),
    "resnet34": (3, 32, 32),
    "shufflenet": (3, 32, 32),
    "vgg16": (3, 32, 32),
    "vgg_small": (3, 32, 32),
    "wrn_20_10": (3, 32, 32),
    "wrn_28_10": (3, 32, 32),
}
PARAMETERS = {  # of the default options, for 10 classes
    "conv2": 4_300_992,
    "conv4": 2_425_024,
    "conv6": 2_261_184,
    "conv8": 5_275_840,
    # 32*9 + 64*32*9 + 64*64*9 + 256*128, batch norms 2*(32+64+64+128), head 1290
    "digits_net": 288 + 18_432 + 36_864 + 32_768 + 576 + 1_290,
    "inception_v3": 22_133_738,  # for 1000 classes the published count, see below
    # 32*25 + 64*32*25 + 1024*512, batch norms 2*(32+64+512), head 5130
    "lenet5": 800 + 51_200 + 524_288 + 1_216 + 5_130,
    "mobilenet_v1": 4_231_976 - 990 * 1_025,  # the published network, 1000 classes
    # 192*75 + 192*160 + 160*96 + 96*192*25 + 2*192*192 + 192*192*9 + 192*192, batch norms 2*(192 + 192+160+96 + 5*192),
    # head 192*10 + 10
    "nin": 14_400 + 30_720 + 15_360 + 460_800 + 73_728 + 331_776 + 36_864 + 3_200 + 1_930,
    "resnet18": 11_173_962,
    "resnet20": 269_722 + 2 * 64,  # the published network, and a batch norm before the head
    "resnet34": 21_282_122,
    "shufflenet": 914_338,  # counted by stages below
    "vgg16": 33_634_250,  # for 1000 classes and 224x224 the published count, see below
    # 9 * (3*128 + 128*128 + 128*256 + 256*256 + 256*512 + 512*512), batch norms 4*(128+256+512), head 8192*10 + 10
    "vgg_small": 9 * 508_288 + 3_584 + 81_930,
    # 9 * (3*160 + 6*160*160 + 160*320 + 5*320*320 + 320*640 + 5*640*640), head 640*10; no batch norm has parameters
    "wrn_20_10": 9 * (480 + 153_600 + 51_200 + 512_000 + 204_800 + 2_048_000) + 6_400,
    # 9 * (3*16 + 16*160 + 7*160*160 + 160*320 + 7*320*320 + 320*640 + 7*640*640), shortcuts 16*160 + 160*320 + 320*640,
    # batch norms 2 * (16 + 7*160 + 160 + 7*320 + 320 + 7*640 + 640), head 640*10 + 10
    "wrn_28_10": 9 * (48 + 2_560 + 179_200 + 51_200 + 716_800 + 204_800 + 2_867_200) + 258_560 + 17_952 + 6_410,
}
MINIMUM = {
    "conv2": 2,
    "conv4": 4,
    "conv6": 8,
    "conv8": 16,
    "digits_net": 4,
    "inception_v3": 9,
    "lenet5": 16,
    "mobilenet_v1": 16,
    "nin": 4,
    "resnet18": 8,
    "resnet20": 4,
    "resnet34": 8,
    "shufflenet": 8,
    "vgg16": 32,
    "vgg_small": 8,
    "wrn_20_10": 4,
    "wrn_28_10": 4,
}
BLOCKS = ("relu", "hardtanh", "prelu", "bireal", "bireal_hardtanh", "bireal_prelu", "equal_bits")
STEMS = ("cifar", "imagenet")
WITHOUT_BLOCK = ("digits_net", "lenet5", "nin", "wrn_20_10", "wrn_28_10")
KINDS = {  # of the others
    **dict.fromkeys(("conv2", "conv4", "conv6", "conv8"), BLOCKS[:2]),
    **dict.fromkeys(("inception_v3", "mobilenet_v1", "shufflenet", "vgg16", "vgg_small"), BLOCKS[:3]),
    **dict.fromkeys(("resnet18", "resnet20", "resnet34"), BLOCKS),
}
WITH_STEM = ("mobilenet_v1", "resnet18", "resnet34", "shufflenet")
VARIANTS = [
    *((name, {}) for name in WITHOUT_BLOCK),
    *((name, {"block": block}) for name in KINDS if name not in WITH_STEM for block in KINDS[name]),
    *((name, {"block": block, "stem": stem}) for name in WITH_STEM for block in KINDS[name] for stem in STEMS),
]
BINARY_INPUT = [(name, options) for name, options in VARIANTS if options.get("block", "relu") != "relu"] + [("nin", {})]


def label(value):
    return "-".join(value.values()) if isinstance(value, dict) else value


every_variant = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=label)


@pytest.fixture
def narrow(monkeypatch):
    narrow_networks(monkeypatch)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def images(in_shape, batch=2):
    return torch.randn(batch, *in_shape, generator=torch.Generator().manual_seed(0))


def test_every_model_is_covered_here():
    assert models.list() == sorted(USUAL) == sorted(PARAMETERS) == sorted(MINIMUM)
    assert [entry.name for entry in models.entries()] == models.list()
    assert PARAMETERS["wrn_28_10"] == 36_479_194  # as published
    offered = sum(
        len(entry.options.get("block", [""])) * len(set(entry.options.get("stem", ["cifar"])) - {"auto"})
        for entry in models.entries()
    )
    assert len(VARIANTS) == offered == 69
    assert {name for name, _ in VARIANTS} == set(USUAL)
    assert len(BINARY_INPUT) == 49


@pytest.mark.parametrize("name", sorted(USUAL))
def test_parameters_and_shape(name):
    with torch.device("meta"):
        model = models.create(name, in_shape=USUAL[name])
        assert count(model) == PARAMETERS[name]
        assert model(torch.empty(2, *USUAL[name])).shape == (2, 10)


PUBLISHED = {  # parameters with batch norm, 1000 classes, 224x224
    # torchvision's vgg16_bn, but for the biases of its convolutions and of its hidden layers
    "vgg16": 138_365_992 - 4_224 - 2 * 4_096,
    # torchvision's inception_v3 without auxiliary classifier, and 3x3 for 1x1 in the pooled branches of the A modules
    "inception_v3": 23_834_568 + 8 * (192 * 32 + 256 * 64 + 288 * 64),
    "mobilenet_v1": 4_231_976,  # Keras applications
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_of_the_published_networks(name):
    with torch.device("meta"):
        model = models.create(name, num_classes=1000, in_shape=(3, 224, 224))
        assert count(model) == PUBLISHED[name]
        if name != "inception_v3":  # its CIFAR layout keeps 222x222: large even without values
            assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)


def test_parameters_of_the_stages_of_shufflenet():
    """The weights of each unit: first 1x1 in three groups (not the very first), 3x3 of each channel, 1x1 in groups."""

    def unit(inputs, outputs, last, groups=3):
        middle = outputs // 4
        norms = 2 * (2 * middle + last)
        return inputs * middle // groups + 9 * middle + middle * last // 3 + norms

    stage2 = unit(24, 240, 216, groups=1) + 3 * unit(240, 240, 240)
    stage3 = unit(240, 480, 240) + 7 * unit(480, 480, 480)
    stage4 = unit(480, 960, 480) + 3 * unit(960, 960, 960)
    assert PARAMETERS["shufflenet"] == 3 * 24 * 9 + 2 * 24 + stage2 + stage3 + stage4 + 961 * 10


@every_variant
@pytest.mark.parametrize("size", [(0, 0), (1, 3), (5, 2), (7, 13)])
def test_odd_shapes(name, options, size, narrow):
    least = 32 if options.get("stem") == "imagenet" else MINIMUM[name]
    in_shape = (2, least + size[0], least + size[1])
    model = models.create(name, num_classes=3, in_shape=in_shape, **options)
    assert model(images(in_shape, batch=3)).shape == (3, 3)


@pytest.mark.parametrize("name", sorted(USUAL))
@pytest.mark.parametrize("axis", [1, 2])
def test_too_small(name, axis):
    in_shape = [1, 64, 64]
    in_shape[axis] = MINIMUM[name] - 1
    with pytest.raises(InputError, match=f"{name}.* at least {MINIMUM[name]}x{MINIMUM[name]} pixels, not"):
        models.create(name, in_shape=in_shape)


@every_variant
def test_gradient_reaches_every_parameter(name, options, narrow):
    torch.manual_seed(0)
    model = models.create(name, in_shape=USUAL[name], **options)
    nn.functional.cross_entropy(model(images(USUAL[name], 4)), torch.tensor([0, 1, 2, 3])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0, key


@every_variant
def test_deterministic_under_a_seed(name, options, narrow):
    torch.manual_seed(3)
    first = models.create(name, in_shape=USUAL[name], **options).state_dict()
    torch.manual_seed(3)
    second = models.create(name, in_shape=USUAL[name], **options).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_variant
def test_initial_logits_are_moderate(name, options, narrow):
    torch.manual_seed(0)
    model = models.create(name, in_shape=USUAL[name], **options)
    assert 0.1 < model(images(USUAL[name], 16)).std() < 10


@every_variant
def test_the_first_layer_is_a_convolution_and_the_last_the_head(name, options, narrow):
    model = models.create(name, in_shape=USUAL[name], **options)
    layers = [(key, module) for key, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert isinstance(layers[0][1], nn.Conv2d)
    assert layers[-1][0] == "head"
    biased = not name.startswith(("conv", "wrn_20"))
    for key, layer in layers[:-1]:
        assert layer.bias is None, key
    assert (layers[-1][1].bias is not None) == biased


@pytest.mark.parametrize(("name", "options"), BINARY_INPUT, ids=label)
def test_binary_activations_train(name, options, narrow):
    torch.manual_seed(0)
    model = models.create(name, in_shape=USUAL[name], **options)
    report = eb.binarize_(model, "bi_half", activation="bireal", skip=eb.first_last_and_shortcuts)
    optimizer = torch.optim.SGD(eb.param_groups(model, weight_decay=1e-4), lr=0.01)
    before = {key: value.clone() for key, value in model.named_parameters()}
    for step in range(2):
        eb.advance(model, step / 2)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images(USUAL[name], 4)), torch.tensor([0, 1, 2, 3]))
        assert torch.isfinite(loss)
        loss.backward()
        optimizer.step()
    assert all(not torch.equal(before[key], value) for key, value in model.named_parameters())
    assert not any("downsample" in layer for layer in report.binary)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_binary_activations_after_a_relu_are_refused(name, narrow):
    model = models.create(name)
    eb.binarize_(model, "bi_half", activation="bireal")
    with pytest.raises(InputError, match="no negative value"):
        model(images(USUAL[name]))


@every_variant
def test_summary_promises_the_bytes_of_the_packed_network(name, options, narrow):
    in_shape = USUAL[name]
    model = models.create(name, in_shape=in_shape, **options)
    parameters = count(model)
    report = eb.binarize_(model, "bi_half")
    info = eb.summary(model, (1, *in_shape))
    assert report.float[-1] == "head"
    assert info.parameters == parameters
    assert info.binary_parameters == sum(layer.weights for layer in report.layers if layer.method)
    state = eb.pack(model).state_dict()
    assert info.packed_bytes == sum(tensor.numel() * tensor.element_size() for tensor in state.values())


@pytest.mark.slow  # an export takes seconds
@pytest.mark.parametrize(
    ("name", "options", "activation"),
    [
        ("conv8", {}, None),
        ("conv4", {"block": "hardtanh"}, "bireal"),
        ("inception_v3", {}, None),
        ("inception_v3", {"block": "prelu"}, "bireal"),
        ("mobilenet_v1", {}, None),
        ("mobilenet_v1", {"block": "hardtanh"}, "bireal"),
        ("nin", {}, "sign"),
        ("shufflenet", {}, None),
        ("shufflenet", {"block": "prelu", "stem": "imagenet"}, "bireal"),
        ("vgg16", {}, None),
        ("vgg16", {"block": "prelu"}, "bireal"),
        ("resnet20", {"block": "relu"}, None),
        ("resnet20", {"block": "equal_bits"}, "bireal"),
        ("resnet18", {"block": "equal_bits", "stem": "imagenet"}, "bireal"),
        ("vgg_small", {"block": "prelu"}, "bireal"),
        ("wrn_20_10", {}, None),
        ("wrn_28_10", {"norm": "plain"}, None),
    ],
)
def test_export(name, options, activation, narrow, tmp_path):
    in_shape = USUAL[name]
    model = models.create(name, in_shape=in_shape, **options)
    eb.binarize_(model, "bi_half", activation=activation)
    model(images(in_shape, 8))  # batch norm statistics
    eb.export_onnx(model.eval(), tmp_path / "m.onnx", images(in_shape))
    assert eb.verify_onnx(model, tmp_path / "m.onnx", images(in_shape, 8)).ok


NORMED = sorted(entry.name for entry in models.entries() if "norm" in entry.options)


def test_every_network_has_the_option():
    assert sorted(USUAL) == NORMED


@pytest.mark.parametrize("name", NORMED)
def test_plain_batch_norm(name, narrow):
    options = {"block": "hardtanh"} if name.startswith("conv") else {}
    affine = models.create(name, in_shape=USUAL[name], norm="affine", **options)
    plain = models.create(name, in_shape=USUAL[name], norm="plain", **options)
    norms = [module for module in plain.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(module.weight is None and module.bias is None for module in norms)
    assert count(affine) - count(plain) == 2 * sum(module.num_features for module in norms)
    plain.load_state_dict({key: value for key, value in affine.state_dict().items() if key in plain.state_dict()})
    # a new batch norm has scale 1 and offset 0, which change nothing
    torch.manual_seed(0)  # of dropout
    expected = affine(images(USUAL[name]))
    torch.manual_seed(0)
    assert torch.equal(plain(images(USUAL[name])), expected)


def test_plain_needs_a_batch_norm():
    with pytest.raises(InputError, match="norm is 'plain', but this network has no batch norm"):
        models.create("conv2", norm="plain")


def test_wrn_20_10_starts_at_the_scale_of_binary_weights():
    torch.manual_seed(0)
    wide = models.create("wrn_20_10")
    deviation = wide.stages[1][0].conv1.weight.std().item()  # of 460,800 draws: 1 % is ten standard errors
    assert deviation == pytest.approx(math.sqrt(2 / (160 * 9)), rel=0.01)


def test_wrong_names_options_and_values():
    with pytest.raises(InputError, match=r"unknown model 'lenet'. Did you mean 'lenet5'\? Known: conv2, conv4"):
        models.create("lenet")
    with pytest.raises(InputError, match=r"unknown option of resnet18 'blok'. Did you mean 'block'\?"):
        models.create("resnet18", blok="relu")
    with pytest.raises(InputError, match=r"unknown option of lenet5 'block'. Known: norm"):
        models.create("lenet5", in_shape=(1, 28, 28), block="relu")
    with pytest.raises(InputError, match=r"unknown block of conv4 'prelu'. .*Known: hardtanh, relu"):
        models.create("conv4", block="prelu")
    with pytest.raises(InputError, match=r"unknown block of resnet18 'bi_real'. .* Known: bireal, bireal_hardtanh"):
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
