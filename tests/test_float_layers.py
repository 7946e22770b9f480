"""Files with float layers in 8 bits: what onnxruntime makes of them, what they compute, what verify sees."""

import json
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import equibit as eb
from equibit.bench import twins
from equibit.cli import main
from equibit.errors import InputError, StateError
from equibit.export import summarize_onnx
from equibit.export.quantized import rounded, weight_scale

X = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
FLOAT = ("stem", "short", "grouped", "tokens", "plain", "head")


class Network(nn.Module):
    """Float layers of every kind round a binary one: batch norm behind them or not, with and without bias."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
        self.body, self.short = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.grouped, self.plain_norm = nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.BatchNorm2d(8, affine=False)
        self.tokens, self.plain = nn.Linear(8, 6), nn.Linear(6, 6, bias=False)
        self.last_norm, self.head = nn.BatchNorm1d(6), nn.Linear(6, 5)

    def forward(self, x):
        x = torch.max_pool2d(self.norm(self.stem(x)).relu(), 2)
        x = self.plain_norm(self.grouped(self.body(x) + self.short(x)))
        x = self.tokens(x.flatten(2).transpose(1, 2)).mean(1)
        return self.head(self.last_norm(self.plain(x)))


def network(activation=None):
    torch.manual_seed(0)
    model = Network()
    for norm in (model.norm, model.last_norm):
        nn.init.uniform_(norm.weight, -1, 1)
        nn.init.normal_(norm.bias)
    model.norm.weight.data[3] = 0  # a filter of zeros, whose bias alone is left
    eb.recalibrate_batchnorm(model, [X])
    return eb.binarize_(model, "sign", skip=lambda layers: FLOAT, activation=activation) and model.eval()


CASES = {"1w32a": (None, "float"), "1w8a": (None, "int8"), "1w1a": ("siman", "float")}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """A model, and its file."""
    activation, activations = CASES[request.param]
    model, path = network(activation), tmp_path_factory.mktemp("float_layers") / "m.onnx"
    eb.export_onnx(model, path, X[:1], activations, calibration=X, float_layers="int8")
    return model, path


def optimized(path, folder, register):
    """The graph that onnxruntime runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "optimized.onnx"), 3
    if register:
        options.register_custom_ops_library(str(eb.runtime.library_path()))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx").graph.node


@pytest.mark.parametrize("register", [False, True], ids=["stock", "ours"])
def test_onnxruntime_runs_them_on_integers(case, register, tmp_path):
    onnx.checker.check_model(onnx.load(case[1]), full_check=True)
    nodes = optimized(case[1], tmp_path, register)
    kinds = Counter(node.op_type for node in nodes)
    assert {kind: kinds[kind] for kind in ("QLinearConv", "QGemm", "MatMulIntegerToFloat")} == {
        "QLinearConv": 3,
        "QGemm": 2,
        "MatMulIntegerToFloat": 1,
    }
    assert kinds["Conv"] == (0 if register else 1)  # stock onnxruntime computes the binary layer in float
    assert not kinds["Gemm"] + kinds["MatMul"] + kinds["Relu"] + kinds["Pad"]


def test_both_engines_compute_nearly_what_the_model_computes(case):
    model, path = case
    with torch.no_grad():
        expected = model(X).numpy()
    sessions = [engine(path) for engine in (onnxruntime.InferenceSession, eb.runtime.InferenceSession)]
    found = [session.run(None, {"input": X.numpy()})[0] for session in sessions]
    spread = np.abs(expected).max()
    assert np.median(np.abs(found[0] - found[1])) <= 1e-3 * spread  # a rounding error may move a value by a step
    assert 0 < np.median(np.abs(found[1] - expected)) < 0.05 * spread


def test_verify_proves_it(case):
    model, path = case
    labels = model(X).argmax(1)
    check = eb.verify_onnx(model, path, X, labels)
    assert check.ok
    assert {layer.name for layer in check.layers} == {*FLOAT, "body"}
    assert check.max_abs_error > check.tolerance  # it is another function than the float model
    assert (check.accuracy, check.model_accuracy) == (check.agreement, 1)
    assert {"ok", "agreement", "max_abs_error", "n"} <= check.to_dict().keys()
    with pytest.raises(InputError, match=r"labels have the shape \(3,\); give one label for each of the 64"):
        eb.verify_onnx(model, path, X, labels[:3])


def other(change):
    def edit(tensor):
        values = numpy_helper.to_array(tensor).copy()
        values.flat[0] = change(values.flat[0])
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    return edit


# Tensor -> the change of its first value. Where the steps of a grid lie is the file's choice.
HARMLESS = ("stem.output.zero",)
DAMAGE = {
    "stem.weight.rounded": lambda value: value + (2 if value < 0 else -2),
    "stem.weight.scale": lambda value: value * np.float32(1.01),
    "stem.bias.rounded": lambda value: value + 2,
    "stem.output.zero": lambda value: value + 1,
    "tokens.weight.rounded": lambda value: value + (2 if value < 0 else -2),
    "tokens.bias": lambda value: value + 0.1,
    "head.bias.rounded": lambda value: value + 2,
    "head.weight.scale": lambda value: -value,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_verify_sees_damage(name, case, tmp_path):
    model, path = case
    proto = onnx.load(path)
    other(DAMAGE[name])(next(tensor for tensor in proto.graph.initializer if tensor.name == name))
    onnx.save(proto, tmp_path / "m.onnx")
    assert eb.verify_onnx(model, tmp_path / "m.onnx", X).ok == (name in HARMLESS)


def test_verify_sees_another_model(case):
    model, path = case
    with torch.no_grad():
        model.norm.running_mean[0] += 0.5
        try:
            failed = [layer.name for layer in eb.verify_onnx(model, path, X).layers if not layer.ok]
        finally:
            model.norm.running_mean[0] -= 0.5
    assert failed == ["stem"]


# kernel, stride, padding, size, channels; and whether blocks of pixels become channels.
GEOMETRIES = {
    "7/2": ((7, 2, 3, 16, 3), True),
    "3/2": ((3, 2, 1, 10, 1), True),
    "5/3": ((5, 3, 2, 12, 2), True),
    "11/4": ((11, 4, 2, 24, 3), True),
    "4/2, no padding": ((4, 2, 0, 8, 4), True),
    "size not a multiple": ((7, 2, 3, 15, 3), False),
    "kernel of a block": ((2, 2, 0, 8, 3), False),
    "many channels": ((3, 2, 1, 8, 5), False),
    "no stride": ((3, 1, 1, 8, 3), False),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_strided_convolutions_over_blocks(name, tmp_path):
    (kernel, stride, padding, size, channels), blocks = GEOMETRIES[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(channels, 4, kernel, stride, padding))
    x = torch.randn(5, channels, size, size)
    eb.export_onnx(model, tmp_path / "m.onnx", x, calibration=x, float_layers="int8")
    assert any(node.op_type == "SpaceToDepth" for node in onnx.load(tmp_path / "m.onnx").graph.node) == blocks
    check = eb.verify_onnx(model, tmp_path / "m.onnx", x)
    assert check.ok
    assert check.max_abs_error < 0.05 * model(x).abs().max()
    twins.write_float(tmp_path / "m.onnx", tmp_path / "float.onnx")
    (conv,) = onnx.load(tmp_path / "float.onnx").graph.node
    attributes = {part.name: onnx.helper.get_attribute_value(part) for part in conv.attribute}
    assert (attributes["strides"], attributes["pads"][:2]) == ([stride] * 2, [padding] * 2)
    assert attributes["kernel_shape"] == [kernel] * 2
    (found,) = onnxruntime.InferenceSession(tmp_path / "float.onnx").run(None, {"input": x.numpy()})
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=0.05 * model(x).abs().max().item())


@pytest.mark.parametrize("rank", [1, 3])
def test_convolutions_of_other_ranks(rank, tmp_path):
    torch.manual_seed(0)
    kind = {1: nn.Conv1d, 3: nn.Conv3d}[rank]
    model, x = nn.Sequential(kind(3, 4, 3, 2, 1), nn.ReLU()), torch.randn(5, 3, *[6] * rank)
    eb.export_onnx(model, tmp_path / "m.onnx", x, calibration=x, float_layers="int8")
    assert eb.verify_onnx(model, tmp_path / "m.onnx", x).ok
    assert "QLinearConv" in {node.op_type for node in optimized(tmp_path / "m.onnx", tmp_path, register=False)}


def test_a_layer_called_twice(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x).relu())

    torch.manual_seed(0)
    model, x = Twice(), torch.randn(8, 4)
    eb.export_onnx(model, tmp_path / "m.onnx", x, calibration=x, float_layers="int8")
    check = eb.verify_onnx(model, tmp_path / "m.onnx", x)
    assert check.ok
    assert [layer.name for layer in check.layers] == ["layer", "layer#2"]


def test_the_summary_of_a_file(case):
    model, path = case
    summary = summarize_onnx(path)
    layers = {layer.name: layer for layer in summary.layers}
    assert {layers[name].weight_bits for name in FLOAT} == {layers[name].activation_bits for name in FLOAT} == {8}
    assert layers["stem"].shape == (8, 3, 7, 7)
    assert layers["stem"].macs == 8 * 3 * 7 * 7 * 8 * 8
    assert layers["stem"].packed_bytes == 8 * 3 * 7 * 7 + 2 * 4 * 8
    inputs = {"XnorBinaryConv": 1, "Int8BinaryConv": 8, "BinaryConv": 32}
    assert layers["body"].activation_bits == inputs[layers["body"].kind]
    folded = sum(p.numel() for n, p in model.named_parameters() if "norm" not in n and "parametrizations" not in n)
    added, elsewhere = 8 + 6, 8 + 6  # biases that folding gives to stem and plain; those of body and, an Add, tokens
    assert sum(layers[name].parameters for name in FLOAT) == folded + added - elsewhere
    assert "int8" in summary.table()


def test_the_float_twin_rounds_nothing(case, tmp_path):
    model, path = case
    twins.write_float(path, tmp_path / "float.onnx")
    exact = tmp_path / "exact.onnx"
    activations = "int8" if "Int8" in path.read_bytes().decode("latin-1") else "float"
    eb.export_onnx(model, tmp_path / "m.onnx", X[:1], activations, calibration=X if activations == "int8" else None)
    twins.write_float(tmp_path / "m.onnx", exact)
    steps = [Counter(node.op_type for node in onnx.load(file).graph.node) for file in (tmp_path / "float.onnx", exact)]
    assert steps[0] == steps[1]
    sessions = [eb.runtime.InferenceSession(file) for file in (tmp_path / "float.onnx", exact)]
    found, expected = (session.run(None, {"input": X.numpy()})[0] for session in sessions)
    assert np.median(np.abs(found - expected)) < 0.05 * np.abs(expected).max()  # the weights are rounded


# --- rounding, and what is refused -----------------------------------------------------------------------------------


def test_scales_are_the_largest_magnitudes_unless_the_bias_needs_more():
    weight = np.array([[1.0, -63.0, 30.4], [0, 0, 0], [1e-12, 0, 0]])
    scale = weight_scale(weight, None, np.float32(0.5))
    np.testing.assert_allclose(scale, [1, 2.0**-60, 1e-12 / 63])
    assert rounded(weight, scale).tolist() == [[1, -63, 30], [0, 0, 0], [63, 0, 0]]
    scale = weight_scale(weight, np.array([1.0, 1.0, 1.0]), np.float32(0.5))
    np.testing.assert_allclose(1 / (0.5 * scale[1:]), 2**30)  # the biases as int32
    assert scale[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"float_layers": "int8"}, "float_layers='int8' needs calibration="),
        ({"float_layers": "int4", "calibration": X[:, 0, 0]}, "unknown float_layers 'int4'"),
        ({"float_layers": "float", "calibration": X[:, 0, 0]}, "nothing is rounded"),
        ({"float_layers": "int8", "calibration": X}, "does not take the calibration inputs"),
        ({"float_layers": "int8", "calibration": X[:2, 0, 0] / 0}, "not finite"),
    ],
)
def test_bad_input_is_refused(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        eb.export_onnx(nn.Sequential(nn.Linear(16, 3)), tmp_path / "m", X[:1, 0, 0], **arguments)
    assert not list(tmp_path.iterdir())


def test_models_without_such_layers_and_with_nan(tmp_path):
    rounding = {"calibration": X[:, 0, 0], "float_layers": "int8"}
    model = nn.Sequential(nn.Linear(16, 3))
    model[0].weight.data[0, 0] = torch.nan
    with pytest.raises(StateError, match="weights of layer '0' are not finite"):
        eb.export_onnx(model, tmp_path / "m", X[:1, 0, 0], **rounding)
    eb.binarize_(model := nn.Sequential(nn.Linear(16, 3)), "sign", skip=eb.nothing)
    with pytest.raises(InputError, match="float_layers='int8' would change nothing"):
        eb.export_onnx(model, tmp_path / "m", X[:1, 0, 0], **rounding)
    assert not list(tmp_path.iterdir())


def test_the_command_line(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "digits-digits_net-bi_half-1w32a", "--out", str(run), "--train.epochs", "2"]) == 0
    capsys.readouterr()
    path = str(tmp_path / "m.onnx")
    assert main(["export", str(run), "-o", path, "--float-layers", "int8", "--activations", "int8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"bytes", "accuracy", "float_accuracy", "n"}
    assert abs(found["accuracy"] - found["float_accuracy"]) < 0.02
    assert main(["verify", str(run), path, "--json"]) == 0
    check = json.loads(capsys.readouterr().out)
    assert check["ok"]
    assert (check["accuracy"], check["model_accuracy"]) == (found["accuracy"], found["float_accuracy"])
    assert main(["verify", str(run), path]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert main(["summary", path]) == 0
    assert "int8" in capsys.readouterr().out
