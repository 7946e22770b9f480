"""export_onnx: one small file that stock onnxruntime runs, with the same results."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from test_packed import Offset
from torch import nn

import equibit as eb

# What torch says of a layer with such a kernel, before and after packing.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


class Twice(nn.Module):
    """Batch norm directly behind a layer whose output another node reads too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class Shared(nn.Module):
    """One layer called twice, with a batch norm of its own behind each call."""

    def __init__(self):
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.two(self.conv(self.one(self.conv(x))))


TWO, THREE, OFFSET = eb.BiHalf(0.3), eb.Sign(scale="mean_abs", density=0.4), Offset()
MAPS = (3, 6, 5)  # shape of most inputs
# name -> (network, shape of an input, method, pad_value: None for 1W32A); every network stands in one exported file
BRANCHES = {
    "linear": (nn.Linear(70, 6), (70,), TWO, None),
    "linear_three": (nn.Linear(9, 6, bias=False), (9,), THREE, None),
    "linear_offset": (nn.Linear(9, 6), (9,), OFFSET, None),
    "linear_xnor": (nn.Linear(70, 6), (70,), TWO, 0),
    "linear_xnor_three": (nn.Linear(9, 6), (9,), THREE, 0),
    "conv1d": (nn.Conv1d(4, 6, 3, groups=2, dilation=2), (4, 9), TWO, None),
    "conv2d": (nn.Conv2d(4, 6, (3, 5), 2, padding=(1, 2), groups=2, bias=False), (4, 7, 8), TWO, None),
    "conv2d_wide": (nn.Conv2d(16, 4, 3, padding=1), (16, 3, 3), TWO, None),
    "conv2d_three": (nn.Conv2d(3, 4, 3, padding=1), MAPS, THREE, None),
    "conv2d_offset": (nn.Conv2d(3, 4, 3, padding=1), MAPS, OFFSET, None),
    "conv2d_same": (nn.Conv2d(3, 5, (4, 2), padding="same", dilation=(1, 3)), MAPS, TWO, None),
    "conv2d_reflect": (nn.Conv2d(3, 5, 3, padding=2, padding_mode="reflect"), MAPS, TWO, None),
    "conv2d_circular": (nn.Conv2d(3, 5, 2, padding="same", padding_mode="circular"), MAPS, TWO, None),
    "conv3d": (nn.Conv3d(2, 4, (2, 3, 2), padding="same"), (2, 3, 4, 3), TWO, None),
    "xnor_minus": (nn.Conv2d(3, 4, (3, 2), 2, padding=(1, 2)), MAPS, TWO, -1),
    "xnor_zero": (nn.Conv2d(3, 4, 3, padding=1, groups=1), MAPS, TWO, 0),
    "xnor_plus": (nn.Conv1d(4, 6, 2, padding="same", groups=2), (4, 9), TWO, 1),
    "xnor_three": (nn.Conv3d(2, 4, 3, padding=1), (2, 3, 4, 3), THREE, -1),
    "xnor_offset": (nn.Conv2d(3, 4, 3, padding=1), MAPS, OFFSET, 1),
    "xnor_reflect": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), MAPS, TWO, 1),
    "fold_conv": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=0.1)), MAPS, TWO, None),
    "fold_linear": (nn.Sequential(nn.Linear(9, 6), nn.BatchNorm1d(6)), (9,), THREE, None),
    "fold_offset": (nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6, affine=False)), (4, 9), OFFSET, None),
    "fold_xnor": (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)), MAPS, TWO, -1),
    "fold_shared": (Shared(), MAPS, TWO, None),
    "up1d": (nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1), (4, 9), TWO, None),
    "up2d": (nn.ConvTranspose2d(4, 6, (3, 2), 2, (1, 0), 1, 2, dilation=(1, 2)), (4, 5, 4), TWO, None),
    "up3d": (nn.ConvTranspose3d(2, 4, (2, 3, 2), stride=(1, 2, 3), bias=False), (2, 3, 4, 3), TWO, None),
    "up_three": (nn.ConvTranspose2d(4, 6, 3, groups=2), (4, 5, 4), THREE, None),
    "up_offset": (nn.ConvTranspose2d(3, 4, 3), MAPS, OFFSET, None),
    "up_xnor": (nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1), MAPS, TWO, -1),
    "up_xnor_three": (nn.ConvTranspose1d(4, 6, 2, groups=2), (4, 9), THREE, 0),
    "up_xnor_offset": (nn.ConvTranspose2d(3, 4, 3), MAPS, OFFSET, 1),
    "fold_up": (nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (4, 5, 4), TWO, None),
    "keep_relu": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), MAPS, TWO, None),
    "keep_twice": (Twice(), MAPS, TWO, None),
    "keep_statistics": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        MAPS,
        TWO,
        None,
    ),
    "keep_sequence": (nn.Sequential(nn.Linear(9, 6), nn.BatchNorm1d(5)), (5, 9), TWO, None),
}


class Branches(nn.Module):
    """All of BRANCHES side by side, each on the first entries of the input; their outputs in a row."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({name: network for name, (network, *_) in BRANCHES.items()})

    def forward(self, x):
        return torch.cat([y.flatten(1) for y in self.each(x).values()], dim=1)

    def each(self, x):
        shapes = {name: shape for name, (_, shape, *_) in BRANCHES.items()}
        return {name: part(x[:, : np.prod(shapes[name])].view(-1, *shapes[name])) for name, part in self.parts.items()}


def randomize_(model):
    """Statistics and biases that no two layers share; a gamma of either sign, and of 0."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                module.weight.data = torch.linspace(-1, 2, len(module.weight))
                module.weight.data[0] = 0
                module.bias.data.normal_()


def branches():
    torch.manual_seed(0)
    model = Branches()
    randomize_(model)
    nn.init.constant_(model.parts.conv2d_offset.weight[0], 0.3)  # scale 0
    for name, (_, _, method, pad_value) in BRANCHES.items():
        activation = None if pad_value is None else eb.activations.create("sign", pad_value)
        eb.binarize_(model.parts[name], method, skip=eb.nothing, activation=activation)
    return model.eval()


X = torch.randn(7, 230, generator=torch.Generator().manual_seed(1))
DIGITS = torch.randn(100, 1, 8, 8, generator=torch.Generator().manual_seed(2))
METADATA = {
    "dataset": "digits",
    "classes": list("0123456789"),
    "mean": (0.5,),
    "std": [0.25],
    "equibit.recipe": "r",
    "method": None,
}


@pytest.fixture(scope="module")
def model():
    return branches()


def digits_net():
    torch.manual_seed(0)
    model = eb.models.create("digits_net", num_classes=10, in_shape=(1, 8, 8))
    randomize_(model)
    model.head.bias.data.normal_()
    eb.binarize_(model, "bi_half")
    return model


@pytest.fixture(scope="module")
def digits():
    return digits_net()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, digits):
    """The exported files, and what a process with neither equibit nor torch computes with them."""
    folder = tmp_path_factory.mktemp("export")
    sizes = [
        eb.export_onnx(model, folder / "branches.onnx", X[:1]),
        eb.export_onnx(digits, folder / "digits.onnx", DIGITS[:2], metadata=METADATA),
    ]
    assert sizes == [(folder / f"{name}.onnx").stat().st_size for name in ("branches", "digits")]
    np.savez(folder / "inputs.npz", one=X[:1], two=X[:2], seven=X, digits=DIGITS)
    process = subprocess.run([sys.executable, "-I", "-c", STOCK, folder], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return folder


STOCK = """
import sys
sys.modules["equibit"] = sys.modules["torch"] = None
import numpy, onnxruntime
folder = sys.argv[1]
inputs, outputs = numpy.load(f"{folder}/inputs.npz"), {}
for name in inputs:
    file = "digits" if name == "digits" else "branches"
    session = onnxruntime.InferenceSession(f"{folder}/{file}.onnx", providers=["CPUExecutionProvider"])
    outputs[name] = session.run(["output"], {"input": inputs[name]})[0]
try:
    import equibit
except ImportError:
    numpy.savez(f"{folder}/outputs.npz", **outputs)
"""


# --- stock onnxruntime -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(folder, model):
    """Batch size -> name of a branch -> its outputs in stock onnxruntime and in torch."""
    stock, results = np.load(folder / "outputs.npz"), {}
    for batch in ("one", "two", "seven"):
        with torch.no_grad():
            expected = {name: y.flatten(1).numpy() for name, y in model.each(X[: len(stock[batch])]).items()}
        ends = np.cumsum([y.shape[1] for y in expected.values()])
        found = np.split(stock[batch], ends[:-1], axis=1)
        results[len(stock[batch])] = dict(zip(expected, zip(found, expected.values(), strict=True), strict=True))
    return results


@pytest.mark.parametrize("name", BRANCHES)
def test_stock_onnxruntime_computes_the_same(results, name):
    assert list(results) == [1, 2, 7]
    for batch in results.values():
        # At most 144 float32 terms of size about 1 in another order, batch norm folded in float64: a few eps.
        np.testing.assert_allclose(*batch[name], rtol=1e-5, atol=1e-5)


def test_stock_onnxruntime_predicts_the_same(folder, digits):
    with torch.no_grad():
        expected = eb.pack(digits)(DIGITS).numpy()
    found = np.load(folder / "outputs.npz")["digits"]
    assert np.array_equal(found.argmax(1), expected.argmax(1))
    np.testing.assert_allclose(
        found, expected, rtol=1e-5, atol=1e-5
    )  # outputs up to 4, a few eps in each of five layers


def test_verify_agrees_layer_by_layer(folder, model):
    check = eb.verify_onnx(model, folder / "branches.onnx", X)
    assert check.ok
    assert check.agreement == 1
    assert check.n == 7
    assert [layer.name for layer in check.layers if not layer.ok] == []
    assert len(check.layers) == len(BRANCHES) + 1  # one of them is called twice


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def protos(folder):
    return {name: onnx.load(folder / f"{name}.onnx") for name in ("branches", "digits")}


def ours(proto):
    return [node for node in proto.graph.node if node.domain == "equibit"]


@pytest.mark.parametrize("file", ["branches", "digits"])
def test_the_file_has_our_domain_with_function_bodies(protos, file):
    proto = protos[file]
    onnx.checker.check_model(proto, full_check=True)
    assert {o.domain: o.version for o in proto.opset_import}["equibit"] == 1
    assert {(f.domain, f.name) for f in proto.functions} == {("equibit", node.op_type) for node in ours(proto)}
    assert all(node.domain == "" for f in proto.functions for node in f.node)
    shape = proto.graph.input[0].type.tensor_type.shape
    assert shape.dim[0].dim_param == "batch"
    assert not any(dim.dim_param for dim in shape.dim[1:])


def test_every_operator_is_covered(protos):
    kinds = {
        f"{x}{levels}{base}"
        for x in ("", "Xnor")
        for levels in ("Binary", "Offset", "Ternary")
        for base in ("Linear", "Conv", "ConvTranspose")
    }
    fused = {"BinaryConvRelu"}  # of keep_relu; see test_fuse
    assert {node.op_type for node in ours(protos["branches"])} == kinds - {"XnorOffsetLinear"} | fused


def test_weights_are_packed_bytes_and_the_file_holds_little_else(protos, folder, digits):
    tensors = {t.name: t for t in protos["digits"].graph.initializer}
    bits = {node.name: tensors[node.input[1]] for node in ours(protos["digits"])}
    assert {name: (t.data_type, list(t.dims)) for name, t in bits.items()} == {
        "conv2": (TensorProto.UINT8, [64, 8 * 5]),  # 32 * 9 = 288 bits
        "conv3": (TensorProto.UINT8, [64, 8 * 9]),
        "fc1": (TensorProto.UINT8, [128, 8 * 4]),
    }
    packed = {name: layer.bits for name, layer in eb.packed.packed_layers(eb.pack(digits))}
    assert all(np.array_equal(onnx.numpy_helper.to_array(bits[name]), packed[name].numpy()) for name in packed)
    size = (folder / "digits.onnx").stat().st_size
    floats = 32 * 9 + 32 + 2 * (64 + 64 + 128) + 128 * 10 + 10  # the first and last layer; scale and bias of the others
    assert (
        sum(onnx.numpy_helper.to_array(t).size for t in tensors.values() if t.data_type == TensorProto.FLOAT) == floats
    )
    needed = sum(len(t.raw_data) for t in bits.values()) + 4 * floats
    assert needed < size < needed + 6 * 1024
    promised = eb.summary(digits, (1, 1, 8, 8)).onnx_bytes
    assert abs(size - promised) <= max(0.02 * size, 16 * 1024)


def test_batch_norm_is_folded_where_it_can_be(protos):
    assert not [n for n in protos["digits"].graph.node if n.op_type == "BatchNormalization"]
    nodes = protos["branches"].graph.node
    norms = [n for n in nodes if n.op_type == "BatchNormalization"]
    assert len(norms) == sum(name.startswith("keep") for name in BRANCHES)
    followed = {n.name for n in ours(protos["branches"]) if any(n.output[0] in norm.input for norm in norms)}
    assert followed == {f"parts.keep_{name}" for name in ("twice.conv", "sequence.0", "statistics.0", "relu.0")}


def test_metadata_is_what_the_contract_names(folder):
    session = onnxruntime.InferenceSession(folder / "digits.onnx", providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map
    assert found == {
        "equibit.format": "1",
        "equibit.dataset": "digits",
        "equibit.classes": json.dumps(list("0123456789")),
        "equibit.mean": "[0.5]",
        "equibit.std": "[0.25]",
        "equibit.recipe": "r",
        "equibit.method": "bi_half",
    }


def test_the_file_holds_nothing_of_this_machine(folder, protos):
    for name, proto in protos.items():
        data = (folder / f"{name}.onnx").read_bytes()
        for trace in (
            Path.cwd(),
            Path(eb.__file__).parent,
            Path.home(),
            folder,
            "site-packages",
            "test_export",
            'File "',
            "line ",
        ):
            assert str(trace).encode() not in data, trace
        parts = [proto, proto.graph, *proto.graph.node, *proto.graph.initializer, *proto.functions]
        assert not any(part.doc_string for part in parts)
        assert not any(node.metadata_props for node in proto.graph.node)


# --- the model ----------------------------------------------------------------------------------------------------


def test_exporting_leaves_the_model_as_it_was(folder, digits):
    fresh = digits_net()
    assert all(module.training for module in digits.modules())
    assert digits.state_dict().keys() == fresh.state_dict().keys()
    assert all(torch.equal(value, digits.state_dict()[name]) for name, value in fresh.state_dict().items())
    assert torch.equal(digits(DIGITS), fresh(DIGITS))
    digits(DIGITS).sum().backward()
    assert digits.conv2.parametrizations.weight.original.grad.abs().sum() > 0
