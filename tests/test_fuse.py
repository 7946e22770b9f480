"""What the exporter moves into our nodes, what it leaves alone, and that the file still computes the same."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from test_packed import Offset
from torch import nn

import equibit as eb
from equibit.export import summarize_onnx


class Wrapped(nn.Module):
    """A layer of each kind, and a function of what they give."""

    def __init__(self, compute):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.other = nn.Conv2d(3, 3, 1, bias=False)
        self.up = nn.ConvTranspose2d(3, 3, 3, padding=1)
        self.fc = nn.Linear(6, 6)
        self.slopes, self.slope = nn.PReLU(3, init=0.1), nn.PReLU(init=-0.5)
        self.wide = nn.PReLU(6, init=2.0)
        self.compute = compute

    def forward(self, x):
        return self.compute(self, x)


OURS = "equibit.AveragePool"


def pool(x, *sizes, ceil_mode):
    return F.avg_pool2d(x, *sizes, ceil_mode=ceil_mode, count_include_pad=False)


# name -> (what is computed, operators of the file)
NETWORKS = {
    "relu": (lambda m, x: m.conv(x).relu(), ["BinaryConvRelu"]),
    "norm, relu": (lambda m, x: m.norm(m.conv(x)).relu(), ["BinaryConvRelu"]),
    "slopes": (lambda m, x: m.slopes(m.conv(x)), ["BinaryConvPRelu"]),
    "one slope": (lambda m, x: m.slope(m.conv(x)), ["BinaryConvPRelu"]),
    "hardtanh": (lambda m, x: F.hardtanh(m.conv(x)), ["BinaryConvClip"]),
    "relu6": (lambda m, x: F.relu6(m.conv(x)), ["BinaryConvClip"]),
    "residual": (lambda m, x: m.norm(m.conv(x)) + x, ["BinaryConvAdd"]),
    "residual on the left": (lambda m, x: x + m.conv(x), ["BinaryConvAdd"]),
    "residual, relu": (lambda m, x: (m.conv(x) + x).relu(), ["BinaryConvAddRelu"]),
    "residual, slopes": (lambda m, x: m.slopes(m.conv(x) + x), ["BinaryConvAddPRelu"]),
    "residual, hardtanh": (lambda m, x: F.hardtanh(m.conv(x) + x, -0.2, 3), ["BinaryConvAddClip"]),
    "a later residual": (lambda m, x: m.conv(x) + x.tanh().exp(), ["Tanh", "Exp", "BinaryConvAdd"]),
    "two layers": (lambda m, x: (m.conv(x) + m.other(x)).relu(), ["BinaryConv", "BinaryConvAddRelu"]),
    "transposed": (lambda m, x: (m.up(x) + x).relu(), ["BinaryConvTransposeAddRelu"]),
    "linear": (lambda m, x: m.wide(m.fc(x[:, 0, 0]) + x[:, 1, 0]), ["BinaryLinearAddPRelu"]),
    "linear, all rows": (lambda m, x: (m.fc(x) + x).relu(), ["BinaryLinearAddRelu"]),
    "chain": (lambda m, x: m.other(m.conv(x).relu()) + x, ["BinaryConvRelu", "BinaryConvAdd"]),
    "called twice": (lambda m, x: m.conv(m.conv(x).relu()) + x, ["BinaryConvRelu", "BinaryConvAdd"]),
    "pool": (lambda m, x: F.avg_pool2d(m.conv(x).relu(), 2), ["BinaryConvRelu", OURS]),
    "a pool with a rest": (lambda m, x: pool(m.conv(x), 4, ceil_mode=True), ["BinaryConv", OURS]),
    "a pool of overlaps": (lambda m, x: pool(m.conv(x), 3, 2, ceil_mode=True), ["BinaryConv", OURS]),
    "a pool of gaps": (lambda m, x: pool(m.conv(x[..., 1:]), (1, 2), 3, ceil_mode=False), ["BinaryConv", OURS]),
    "every other pixel": (lambda m, x: F.avg_pool2d(m.conv(x[..., 1:]), 1, 2), ["BinaryConv", OURS]),
    # what stays
    "a pool that pads": (lambda m, x: F.avg_pool2d(m.conv(x), 2, padding=1), ["BinaryConv", "AveragePool"]),
    "a pool that counts": (lambda m, x: F.avg_pool2d(m.conv(x), 4, ceil_mode=True), ["BinaryConv", "AveragePool"]),
    "a pool of something else": (lambda m, x: F.avg_pool2d(m.conv(x).exp(), 2), ["BinaryConv", "Exp", "AveragePool"]),
    "relu, then residual": (lambda m, x: m.conv(x).relu() + x, ["BinaryConvRelu", "Add"]),
    "slope, then norm": (lambda m, x: m.norm(m.slopes(m.conv(x))), ["BinaryConvPRelu", "BatchNormalization"]),
    "two readers": (lambda m, x: [y := m.conv(x), y.relu() + y.tanh()][1], ["BinaryConv", "Relu", "Tanh", "Add"]),
    "an output": (lambda m, x: [y := m.conv(x), (y, y.relu())][1], ["BinaryConv", "Relu"]),
    "itself": (lambda m, x: [y := m.conv(x), y + y][1], ["BinaryConv", "Add"]),
    "a residual that is broadcast": (lambda m, x: m.conv(x) + x[:, :1], ["BinaryConv", "Add"]),
    "a residual per image": (lambda m, x: m.conv(x) + x.mean((2, 3), keepdim=True), ["BinaryConv", "Add"]),
    "a constant": (lambda m, x: m.conv(x) + 2.0, ["BinaryConv", "Add"]),
    "slopes along another axis": (lambda m, x: F.prelu(m.fc(x), m.slopes.weight), ["BinaryLinear", "PRelu"]),
    "another activation": (lambda m, x: m.conv(x).sigmoid(), ["BinaryConv", "Sigmoid"]),
}
# Every kind of weight and of input, with everything behind it: keyword arguments of binarize_, operator of the file
KINDS = {
    "three": ({"method": eb.Sign(density=0.5)}, "TernaryConvAddPRelu"),
    "offset": ({"method": Offset()}, "OffsetConvAddPRelu"),
    "xnor": ({"method": eb.BiHalf(), "activation": "bireal"}, "XnorBinaryConvAddPRelu"),
    "xnor_three": ({"method": eb.Sign(density=0.5), "activation": "sign"}, "XnorTernaryConvAddPRelu"),
    "xnor_offset": ({"method": Offset(), "activation": "sign"}, "XnorOffsetConvAddPRelu"),
}
X = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class All(nn.Module):
    """All of NETWORKS and KINDS side by side."""

    def __init__(self):
        super().__init__()
        plain = {name: Wrapped(compute) for name, (compute, _) in NETWORKS.items()}
        self.parts = nn.ModuleDict(plain | {name: Wrapped(NETWORKS["residual, slopes"][0]) for name in KINDS})

    def forward(self, x):
        found = [part(x) for part in self.parts.values()]
        return tuple(y for part in found for y in (part if isinstance(part, tuple) else (part,)))


def network():
    torch.manual_seed(0)
    model = All()
    for name, part in model.parts.items():
        part.norm.running_mean.normal_()
        part.norm.running_var.uniform_(0.5, 2)
        for prelu in (part.slopes, part.wide):
            prelu.weight.data += torch.arange(prelu.num_parameters) / 10
        arguments = KINDS[name][0] if name in KINDS else {"method": eb.BiHalf()}
        eb.binarize_(part, skip=eb.nothing, **arguments)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def file(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("fuse") / "m.onnx"
    eb.export_onnx(model, path, X)
    return path


def steps(path):
    """Operators of the graph, shape arithmetic left out."""
    nodes = onnx.load(path).graph.node
    kinds = [OURS if n.domain and n.op_type == "AveragePool" else n.op_type for n in nodes]
    return [kind for kind in kinds if kind not in ("Gather", "Slice", "ReduceMean", "Reshape", "Squeeze")]


def test_what_is_fused_and_what_stays(file):
    wanted = [kind for _, kinds in NETWORKS.values() for kind in kinds] + [kind for _, kind in KINDS.values()]
    assert Counter(steps(file)) == Counter(wanted)
    onnx.checker.check_model(onnx.load(file), full_check=True)


@pytest.mark.parametrize("engine", [onnxruntime.InferenceSession, eb.runtime.InferenceSession])
def test_the_file_computes_the_same(engine, model, file):
    with torch.no_grad():
        expected = model(X)
    assert len(expected) == len(NETWORKS) + len(KINDS) + 1
    for found, wanted in zip(engine(file).run(None, {"input": X.numpy()}), expected, strict=True):
        # 27 terms of about 1 in another order, and where "called twice" again: a few eps of the largest
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * (1 + np.abs(found).max()))


def test_verify_agrees(model, file):
    check = eb.verify_onnx(model, file, X)
    assert check.ok
    assert len(check.layers) == sum("Binary" in k or "Offset" in k or "Ternary" in k for k in steps(file))


def constant(proto, node, slot):
    """The tensor of a constant input of a node."""
    return next(t for t in proto.graph.initializer if t.name == node.input[slot])


def shifted(proto, node):
    tensor = constant(proto, node, 4)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.2), tensor.name))


def bound(name):
    def edit(_proto, node):
        next(a for a in node.attribute if a.name == name).f += 0.3

    return edit


def swap(_proto, node):
    node.input[len(node.input) - 1] = node.input[0]  # the input of the layer in the place of the residual


def rename(_proto, node):
    node.op_type = node.op_type.removesuffix("Relu")


DAMAGE = {
    "slope": ("residual, slopes", shifted),
    "lower bound": ("residual, hardtanh", bound("low")),
    "upper bound": ("residual, hardtanh", bound("high")),
    "residual": ("a later residual", swap),
    "no activation": ("residual, relu", rename),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_verify_sees_what_was_fused(damage, model, file, tmp_path):
    name, edit = DAMAGE[damage]
    proto = onnx.load(file)
    edit(proto, next(node for node in proto.graph.node if node.name == f"parts.{name}.conv"))
    onnx.save(proto, tmp_path / "m.onnx")
    assert not eb.verify_onnx(model, tmp_path / "m.onnx", 3 * X).ok


def test_the_summary_of_a_file_counts_the_slopes(file):
    layers = {layer.name: layer.parameters for layer in summarize_onnx(file).layers}
    assert layers["parts.slopes.conv"] == 3 * 27 + 3 + 3  # weights, biases, slopes
    assert layers["parts.one slope.conv"] == 3 * 27 + 3 + 1
    assert layers["parts.relu.conv"] == 3 * 27 + 3


@pytest.mark.parametrize("block", ["relu", "bireal_prelu"])
def test_a_residual_network_is_layers_and_little_else(block, tmp_path):
    """In resnet20 nothing stands between two binary layers but the shortcuts that change the shape."""
    ends = "Relu" if block == "relu" else "PRelu"
    model = eb.models.create("resnet20", num_classes=10, in_shape=(3, 16, 16), block=block)
    eb.binarize_(model, "bi_half", activation=None if block == "relu" else "bireal")
    x = torch.randn(2, 3, 16, 16)
    eb.export_onnx(model.eval(), tmp_path / "r.onnx", x)
    kinds = steps(tmp_path / "r.onnx")
    assert sum("Binary" in kind for kind in kinds) == 18
    standard = Counter(kind for kind in kinds if "Binary" not in kind)
    assert standard == {"Conv": 1, OURS: 2, "Pad": 2, "BatchNormalization": 1, "Gemm": 1, ends: 1}
    assert eb.verify_onnx(model, tmp_path / "r.onnx", x).ok
    size = (tmp_path / "r.onnx").stat().st_size
    assert abs(size - eb.summary(model, x.shape).onnx_bytes) <= max(0.02 * size, 16 * 1024)
