"""export_onnx: what it takes, and what it refuses without leaving a file."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import equibit as eb
from equibit.errors import FileError, InputError, StateError

X = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))


def small(activation=None):
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    eb.binarize_(layer, "bi_half", skip=eb.nothing, activation=activation)
    return layer


def test_a_packed_model_gives_the_same_file(tmp_path):
    x = torch.zeros(2, 4)  # the values of an example do not matter, not even to a sign activation
    binarised, packed = small("sign"), eb.pack(small("sign"))
    eb.export_onnx(binarised, tmp_path / "a", x)
    eb.export_onnx(packed, tmp_path / "b", x)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert eb.verify_onnx(packed, tmp_path / "b", X[:, :4]).ok


def test_a_float_model_is_written_as_it_is(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Dropout(0.5))
    eb.export_onnx(model, tmp_path / "m", X[:2, :4], metadata={"method": "float"})
    proto = onnx.load(tmp_path / "m")
    assert not any(node.domain for node in proto.graph.node)
    assert not proto.functions
    assert eb.verify_onnx(model, tmp_path / "m", X[:, :4]).ok
    assert model.training
    model[0].weight.data[0] += 0.1
    assert not eb.verify_onnx(model, tmp_path / "m", X[:, :4]).ok


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.input, self.output = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, a, b):
        both = self.input(a) + self.output(b)
        return both, both.relu()


def test_several_inputs_and_outputs(tmp_path):
    model = Pair()
    eb.binarize_(model, eb.Sign(density=0.5), skip=eb.nothing)
    eb.export_onnx(model, tmp_path / "m", (X[:2, :4], X[:2]))
    session = eb.runtime.InferenceSession(tmp_path / "m")
    assert [i.name for i in session.get_inputs()] == ["input_0", "input_1"]
    assert len(session.get_outputs()) == 2
    assert eb.verify_onnx(model, tmp_path / "m", (X[:, :4], X)).ok


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activations": "int8"}, "needs calibration="),
        ({"activations": "int4", "calibration": X}, "unknown activations 'int4'"),
        ({"calibration": X}, "say activations='int8'"),
        ({"activations": "int8", "calibration": X}, "does not take the calibration inputs"),
        ({"activations": "int8", "calibration": X[:0, :4]}, r"calibration is \[\(0, 4\)\]"),
        ({"activations": "int8", "calibration": (X[:2, :4], X)}, "as many inputs as the network takes"),
        ({"activations": "int8", "calibration": X[:2, :4] / 0}, "not finite"),
        ({"metadata": {"speed": 3}}, "unknown metadata speed; known: format, method"),
        ({"metadata": {"mean": torch.zeros(3)}}, "JSON"),
        ({"metadata": {"format": "2"}}, "format='2'"),
        ({"example_input": ()}, "example_input"),
        ({"example_input": torch.tensor(1.0)}, "example_input"),
        ({"example_input": X[:0, :4]}, r"\(0, 4\)"),
        ({"example_input": np.zeros((2, 4), np.float32)}, "ndarray"),
    ],
)
def test_bad_input_is_refused(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        eb.export_onnx(small(), tmp_path / "m", **({"example_input": X[:2, :4]} | arguments))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_refused(tmp_path, dtype):
    x = X[:2, :4].to(dtype)
    for model, name in (
        (small().to(dtype), "bias"),
        (nn.Linear(4, 3).to(dtype), "weight"),
        (small(), "an example input"),
    ):
        with pytest.raises(StateError, match=rf"^{name} is {dtype}.*float\(\)"):
            eb.export_onnx(model, tmp_path / "m", x)


class Awkward(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.layer, self.way = nn.Conv1d(4, 3, 1) if way == "wrong channels" else nn.Linear(4, 3), way

    def forward(self, x):
        if self.way == "branch on a value":
            return self.layer(x) if x.sum() > 0 else x
        if self.way == "fixed batch":
            return self.layer(x).reshape(2, 3)
        if self.way == "no message":
            raise AssertionError
        return self.layer(x[:, 1:, None] if self.way == "wrong channels" else x[:, 1:])


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("branch on a value", "data-dependent"),
        ("fixed batch", "batches of 2 only"),
        ("no message", "AssertionError"),
        (
            "wrong channels",
            r"layer 'layer' got an input of shape \(.*, 3, 1\); it takes 4 channels in dimension 1 of 3",
        ),
        ("wrong width", r"layer 'layer' got an input of shape \(.*, 3\); it takes 4 channels"),
    ],
)
def test_a_model_that_cannot_be_exported_is_a_state_error(tmp_path, way, message):
    model = Awkward(way)
    eb.binarize_(model, "sign", skip=eb.nothing)
    (tmp_path / "m").write_bytes(b"old")
    with pytest.raises(StateError, match=message):
        eb.export_onnx(model, tmp_path / "m", X[:2, :4])
    assert (tmp_path / "m").read_bytes() == b"old"


def test_a_file_that_cannot_be_written_is_a_file_error(tmp_path):
    with pytest.raises(FileError, match="cannot write"):
        eb.export_onnx(small(), tmp_path / "none" / "m", X[:2, :4])
