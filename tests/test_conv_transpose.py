"""Transposed convolutions: their filters are in dim 1 within each group, and nothing else of them differs."""

import itertools

import onnx
import pytest
import torch
from rounding import assert_rounding
from torch import nn

import equibit as eb
from equibit import convert
from equibit.errors import InputError
from equibit.layers import binary_layers, filters_first, swapped_groups
from equibit.methods import Method

SHAPES = [(groups, cin, cout) for groups, cin, cout in itertools.product((1, 2, 3), (6, 12), (6, 18))]
LAYERS = {
    "1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1), (2, 4, 5)),
    "2d grouped": (lambda: nn.ConvTranspose2d(4, 6, (3, 2), 2, (1, 0), 1, groups=2, dilation=(1, 2)), (2, 4, 5, 4)),
    "2d depthwise": (lambda: nn.ConvTranspose2d(6, 6, 3, groups=6, bias=False), (2, 6, 4, 5)),
    "3d": (lambda: nn.ConvTranspose3d(2, 4, (2, 3, 2), stride=(1, 2, 3)), (2, 2, 3, 4, 3)),
}
METHODS = [eb.BiHalf(0.3), eb.Sign(scale="mean_abs"), eb.BiHalf(density=0.5)]


def filters_by_loop(weight, groups):
    """The definition in the contract: filter (g, o) is the slice o of dim 1 within group g."""
    per_group = weight.shape[0] // groups
    return torch.stack(
        [weight[g * per_group : (g + 1) * per_group, o] for g in range(groups) for o in range(weight.shape[1])]
    )


@pytest.mark.parametrize(("groups", "cin", "cout"), SHAPES)
def test_the_axis_move_is_the_definition_and_its_own_inverse(groups, cin, cout):
    weight = torch.randn(cin, cout // groups, 2, 3)
    filters = filters_first(weight, groups)
    assert filters.shape == (cout, cin // groups, 2, 3)
    assert torch.equal(filters, filters_by_loop(weight, groups))
    assert torch.equal(filters_first(filters, groups), weight)
    assert filters_first(weight, None) is weight


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_computes_with_its_binary_weight(name, method):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, plain, x = make(), make(), torch.randn(shape)
    plain.load_state_dict(layer.state_dict())
    report = eb.binarize_(layer, method, skip=eb.nothing)
    assert report.layers[0].shape == tuple(plain.weight.shape)
    filters = filters_by_loop(plain.weight.detach(), plain.groups)
    scale = method.scale(filters).reshape(-1, *[1] * (filters.dim() - 1))
    plain.weight.data = filters_first(scale * method.binary(filters), plain.groups)
    assert torch.equal(layer(x), plain(x))
    binary = eb.binary_weights(layer)["weight"]
    assert torch.equal(filters_by_loop(binary, plain.groups), method.binary(filters))
    # The gradient of the identity STE is the weight's own times the scale, filter by filter.
    for module in (layer, plain):
        module(x).square().sum().backward()
    if isinstance(method, eb.BiHalf):
        gradient = filters_by_loop(plain.weight.grad, plain.groups) * scale
        found = filters_by_loop(layer.parametrizations.weight.original.grad, plain.groups)
        torch.testing.assert_close(found, gradient, rtol=1e-6, atol=1e-6)  # one float32 product, either way round


def test_every_output_channel_has_its_own_share_of_plus_one():
    layer = nn.ConvTranspose2d(6, 8, 3, groups=2)
    nn.init.normal_(layer.weight, mean=1.0)
    eb.binarize_(layer, eb.BiHalf(0.5), skip=eb.nothing)
    filters = filters_by_loop(eb.binary_weights(layer)["weight"], 2)
    assert filters.shape == (8, 3, 3, 3)
    assert ((filters < 0).flatten(1).sum(1) == 13).all()  # floor(27 / 2)


class Numbered(Method):
    """Projects every filter onto its number."""

    key = "numbered"
    needs_advance = True

    def assign(self, latent):
        return torch.where(latent >= 0, 1.0, -1.0)

    def factors(self, latent, binary):
        return latent.new_ones(len(latent)), None

    def attach(self, weight):
        self.attached = tuple(weight.shape)

    def project_(self, latent):
        latent.copy_(torch.arange(1.0, len(latent) + 1).reshape(-1, *[1] * (latent.dim() - 1)).expand_as(latent))


@pytest.mark.parametrize(("cin", "cout", "groups"), [(4, 6, 2), (6, 6, 6), (3, 1, 1), (1, 3, 1)])
def test_methods_attach_and_project_with_filters_first_and_in_place(cin, cout, groups):
    layer = nn.ConvTranspose1d(cin, cout, 3, groups=groups)
    eb.binarize_(layer, Numbered(), skip=eb.nothing)
    (found,) = binary_layers(layer)
    assert found.method.attached == (cout, cin // groups, 3)
    latent = found.latent
    eb.advance(layer, 0.0)
    assert found.latent is latent
    assert latent.shape == (cin, cout // groups, 3)
    assert filters_by_loop(latent.detach(), groups)[:, 0, 0].tolist() == list(range(1, cout + 1))


def test_a_float_checkpoint_loads():
    trained, layer = nn.ConvTranspose2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 3, groups=2)
    eb.binarize_(layer, "bi_half", skip=eb.nothing)
    layer.load_state_dict(trained.state_dict())
    eb.binarize_(trained, "bi_half", skip=eb.nothing)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(layer(x), trained(x))


class UNet(nn.Module):
    """Down, and up to the size that was: the call form with `output_size`, by keyword or by position."""

    def __init__(self, by_keyword=True):
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, stride=2)
        self.up = nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.by_keyword = by_keyword

    def forward(self, x):
        y = self.down(x)
        return self.norm(self.up(y, output_size=x.shape) if self.by_keyword else self.up(y, x.shape[2:]))


@pytest.mark.parametrize("activation", [None, "sign"])
@pytest.mark.parametrize("by_keyword", [True, False])
@pytest.mark.parametrize("size", [7, 8])
def test_output_size_keeps_working(tmp_path, size, by_keyword, activation):
    torch.manual_seed(0)
    model, x = UNet(by_keyword), torch.randn(3, 3, size, size)
    model.norm.running_mean.normal_()
    eb.binarize_(model, "bi_half", skip=eb.nothing, activation=activation)
    assert model(x).shape == (3, 4, size, size)
    with torch.no_grad():
        assert_rounding(eb.pack(model)(x), model.eval()(x))
    eb.export_onnx(model, tmp_path / "m.onnx", x)
    assert not [n for n in onnx.load(tmp_path / "m.onnx").graph.node if n.op_type == "BatchNormalization"]
    check = eb.verify_onnx(model, tmp_path / "m.onnx", x)
    assert check.ok
    assert check.agreement == 1


@pytest.mark.parametrize("output_size", [(6, 7), (7, 9), (7,), (2, 4, 7, 20)])
def test_an_output_size_that_the_layer_cannot_give(output_size):
    layer = nn.ConvTranspose2d(4, 4, 3, stride=2)
    eb.binarize_(layer, "sign", skip=eb.nothing)
    packed, x = eb.pack(layer), torch.randn(2, 4, 3, 3)
    for module in (layer, packed):
        with pytest.raises(ValueError, match="output_size" if module is packed else "output"):
            module(x, output_size=output_size)
    with pytest.raises(InputError, match=r"from \[7, 7\] to \[8, 8\]"):
        packed(x, output_size)
    assert packed(x[0], (7, 8)).shape == (4, 7, 8)


def test_a_sign_activation_leaves_the_cropping_to_the_layer():
    layer = nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1)
    weight = layer.weight.detach()
    eb.binarize_(layer, "sign", skip=eb.nothing, activation=eb.activations.create("sign", -1))
    x = torch.randn(2, 4, 3, 3)
    signs, scale = torch.where(x >= 0, 1.0, -1.0), (2 / 36) ** 0.5
    expected = nn.functional.conv_transpose2d(
        signs, scale * torch.where(weight >= 0, 1.0, -1.0), layer.bias, stride=2, padding=1
    )
    torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)  # the scale in float32 or in double
    assert_rounding(eb.pack(layer)(x), layer(x))


@pytest.mark.parametrize("name", LAYERS)
def test_macs_are_the_products_that_are_computed(name, tmp_path):
    make, (batch, *shape) = LAYERS[name]
    layer = make()
    x = torch.ones(1, *shape)
    # With ones everywhere and no cropping every product adds 1 to the sum of the output.
    convolve = getattr(nn.functional, f"conv_transpose{len(shape) - 1}d")
    ones = torch.ones_like(layer.weight)
    counted = int(convolve(x, ones, None, layer.stride, 0, 0, layer.groups, layer.dilation).sum())
    assert eb.summary(layer, (batch, *shape)).macs_float == counted
    model = nn.Sequential(layer)
    eb.binarize_(model, eb.BiHalf(), skip=eb.nothing)
    info, packed = eb.summary(model, (batch, *shape)), eb.summary(eb.pack(model), (batch, *shape))
    eb.export_onnx(model, tmp_path / "m.onnx", x)
    from_file = eb.export.summarize_onnx(tmp_path / "m.onnx")
    assert info.macs_binary == packed.macs_binary == from_file.macs_binary == counted
    assert info.layers == packed.layers
    assert info.packed_bytes == sum(t.numel() * t.element_size() for t in eb.pack(model).state_dict().values())
    assert info.binary_parameters == from_file.binary_parameters == ones.numel()


def test_macs_of_a_float_file(tmp_path):
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), nn.ConvTranspose2d(6, 2, 2))
    eb.export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 4, 5, 4))
    assert eb.export.summarize_onnx(tmp_path / "m.onnx").macs_float == eb.summary(model, (1, 4, 5, 4)).macs_float


def test_compile_fullgraph_agrees_with_eager():
    layer, x = nn.ConvTranspose2d(4, 6, 3, groups=2), torch.randn(2, 4, 5, 5)
    eb.binarize_(layer, "bi_half", skip=eb.nothing)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x), rtol=1e-6, atol=1e-6)  # the same kernel


def test_a_subclass_with_its_own_output_padding_stays_float():
    class Own(nn.ConvTranspose2d):
        def _output_padding(self, *_args, **_options):
            return [0, 0]

    report = eb.binarize_(nn.Sequential(Own(2, 2, 2), nn.Linear(2, 2)), "sign", skip=convert.nothing)
    assert report.binary == ["1"]
    assert swapped_groups(nn.Linear(2, 2)) is None
