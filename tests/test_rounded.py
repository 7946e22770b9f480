"""Files with 8-bit activations: what they compute, in stock onnxruntime and in our kernels, and their scales."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_packed import Offset
from torch import nn

import equibit as eb
from equibit.cli import main
from equibit.errors import InputError
from equibit.export.graph import attribute


class Network(nn.Module):
    """Layers of every level, one behind another; the last two take the same input."""

    def __init__(self):
        super().__init__()
        self.two, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.three, self.offset = nn.Conv2d(8, 8, 3, 2, padding=1, groups=2), nn.ConvTranspose2d(8, 4, 2)
        self.left, self.right = nn.Linear(64, 5), nn.Linear(64, 5)

    def forward(self, x):
        x = self.norm(self.two(x)).relu()
        x = self.offset(self.three(x)).flatten(1)
        return self.left(x) + self.right(x)


X = torch.randn(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = Network()
    methods = {"three": eb.Sign(density=0.5), "offset": Offset()}
    eb.binarize_(network, "bi_half", skip=eb.nothing, overrides=methods)
    return network.eval()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("rounded") / "m.onnx"
    eb.export_onnx(model, path, X[:1], activations="int8", calibration=X)
    return path


def ours(path):
    return {node.name: node for node in onnx.load(path).graph.node if node.domain == "equibit"}


def test_every_layer_that_takes_floats_is_rounded(file):
    assert {name: node.op_type for name, node in ours(file).items()} == {
        "two": "Int8BinaryConvRelu",
        "three": "Int8TernaryConv",
        "offset": "Int8OffsetConvTranspose",
        "left": "Int8BinaryLinearAdd",
        "right": "Int8BinaryLinear",
    }
    onnx.checker.check_model(onnx.load(file), full_check=True)


def test_scales_are_largest_magnitudes(file):
    """Of the first layer by hand; two layers that read one tensor have one scale."""
    scales = {name: attribute(node, "input_scale") for name, node in ours(file).items()}
    assert scales["two"] == pytest.approx(X.abs().max().item() / 127, rel=1e-6)
    assert scales["left"] == scales["right"]


def fake_rounded(model, file):
    """The packed model whose layers round their inputs in torch."""
    packed = eb.pack(model)
    for name, layer in eb.packed.packed_layers(packed):
        scale = torch.tensor(attribute(ours(file)[name], "input_scale"))
        layer.register_forward_pre_hook(lambda _, args, s=scale: ((args[0] / s).round().clamp(-127, 127) * s,))
    return packed


@pytest.mark.parametrize("engine", [onnxruntime.InferenceSession, eb.runtime.InferenceSession])
def test_the_file_is_the_fake_quantised_network(engine, model, file):
    """Up to values that a rounding error moves over a half: one such step of one layer, over 64 inputs."""
    with torch.no_grad():
        expected = fake_rounded(model, file)(3 * X).numpy()
        exact = eb.pack(model)(3 * X).numpy()
    (found,) = engine(file).run(None, {"input": (3 * X).numpy()})
    near = np.abs(found - expected).max(axis=1)
    assert np.median(near) <= 1e-5 * np.abs(expected).max()
    assert near.max() < 0.1 * np.abs(found - exact).max()  # rounding and clipping themselves are far larger


def test_verify_proves_it(model, file):
    check = eb.verify_onnx(model, file, X)
    assert check.ok
    assert check.max_abs_error > check.tolerance / 10  # it is another function than the float model


@pytest.mark.parametrize("factor", [0.9, 2.0])
def test_verify_takes_the_scale_of_the_file(model, file, tmp_path, factor):
    """Another scale is another network, but layer by layer the file does what it says."""
    proto = onnx.load(file)
    node = next(node for node in proto.graph.node if node.name == "three")
    next(a for a in node.attribute if a.name == "input_scale").f *= factor
    onnx.save(proto, tmp_path / "m.onnx")
    assert all(layer.ok for layer in eb.verify_onnx(model, tmp_path / "m.onnx", X).layers)


def test_layers_that_take_signs_stay(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 4))
    eb.binarize_(model[0], "sign", skip=eb.nothing)
    eb.binarize_(model[1], "sign", skip=eb.nothing, activation="sign")
    x = torch.randn(4, 64)
    eb.export_onnx(model, tmp_path / "m.onnx", x, activations="int8", calibration=x)
    assert [node.op_type for node in ours(tmp_path / "m.onnx").values()] == ["Int8BinaryLinear", "XnorBinaryLinear"]
    with pytest.raises(InputError, match="would change nothing"):
        eb.export_onnx(model[1], tmp_path / "n.onnx", x[:, :8], activations="int8", calibration=x[:, :8])
    assert not (tmp_path / "n.onnx").exists()


def test_a_layer_that_sees_nothing_but_zeros(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3))
    eb.binarize_(model, "sign", skip=eb.nothing)
    eb.export_onnx(model, tmp_path / "m.onnx", torch.zeros(2, 4), activations="int8", calibration=torch.zeros(2, 4))
    (found,) = eb.runtime.InferenceSession(tmp_path / "m.onnx").run(None, {"input": np.zeros((2, 4), np.float32)})
    np.testing.assert_allclose(found[0], model[0].bias.detach().numpy())


def test_the_command_line_reports_what_it_costs(tmp_path, capsys):
    run = tmp_path / "run"
    words = ["train", "digits-digits_net-bi_half-1w32a", "--out", str(run), "--train.epochs", "2"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(["export", str(run), "-o", str(tmp_path / "m.onnx"), "--activations", "int8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"bytes", "accuracy", "float_accuracy", "n"}
    assert found["bytes"] == (tmp_path / "m.onnx").stat().st_size
    assert found["n"] == 360
    assert abs(found["accuracy"] - found["float_accuracy"]) < 0.02
    assert main(["eval", str(tmp_path / "m.onnx"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == found["accuracy"]
    assert main(["verify", str(run), str(tmp_path / "m.onnx")]) == 0
