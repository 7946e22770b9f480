"""equibit.runtime: sessions over files, without torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from operator_files import OPERATORS

import equibit as eb
from equibit.errors import FileError, FormatError, InputError, StateError
from equibit.export.functions import function

SIGNS = np.array([[1, -1, -1, 1], [-1, -1, -1, -1], [1, 1, -1, -1]])
SCALE, BIAS = np.array([1.0, 2, 0.5], np.float32), np.array([0.0, 10, -1], np.float32)
X = np.array([[1, 2, 3, 4], [0, 0, 0, 1]], np.float32)
Y = np.array([[0, -10, -3], [1, 8, -1.5]], np.float32)  # by hand: scale * (signs . x) + bias


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """One of our nodes, built from the contract alone: rows of bits, little-endian, in 8 bytes."""
    rows = np.zeros((3, 8), np.uint8)
    rows[:, 0] = np.packbits(SIGNS > 0, axis=1, bitorder="little")[:, 0]
    constants = [numpy_helper.from_array(v, k) for k, v in {"bits": rows, "scale": SCALE, "bias": BIAS}.items()]
    node = helper.make_node(
        "BinaryLinear", ["input", "bits", "scale", "bias"], ["output"], domain="equibit", shape=[3, 4]
    )
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", w]) for n, w in (("input", 4), ("output", 3))]
    graph = helper.make_graph([node], "by_hand", ends[:1], ends[1:], constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("equibit", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[function("BinaryLinear")], ir_version=10)
    path = tmp_path_factory.mktemp("runtime") / "m.onnx"
    onnx.save(model, path)
    return path


def test_a_session_runs_a_file_or_its_bytes(file):
    for source in (file, str(file), file.read_bytes()):
        session = eb.runtime.InferenceSession(source)
        assert isinstance(session, onnxruntime.InferenceSession)
        (found,) = session.run(None, {"input": X})
        assert np.array_equal(found, Y)


def test_only_the_operators_of_a_file_are_registered(file):
    """Each costs the runtime time and memory; a file says by its functions which it has."""
    data = file.read_bytes()
    for source in (file, str(file), data):
        session = eb.runtime.InferenceSession(source)
        assert session.get_session_options().get_session_config_entry("equibit.operators") == "BinaryLinear,"
    model = onnx.load(file)
    foreign = function("TernaryLinear")
    foreign.domain = "another"
    model.functions.extend([function("XnorBinaryConvAddRelu"), foreign])
    assert eb.runtime._functions(model.SerializeToString()) == ["BinaryLinear", "XnorBinaryConvAddRelu"]


def test_a_file_of_very_many_operators_registers_all(file):
    model = onnx.load(file)
    others = (operator.name for operator in OPERATORS if operator.name != "BinaryLinear")
    model.functions.extend(map(function, others))
    session = eb.runtime.InferenceSession(model.SerializeToString())
    with pytest.raises(RuntimeError, match=r"equibit\.operators"):
        session.get_session_options().get_session_config_entry("equibit.operators")
    assert np.array_equal(session.run(None, {"input": X})[0], Y)


def test_the_functions_of_a_damaged_file_are_none_or_some(file, tmp_path):
    """Whatever the bytes are: onnxruntime says what is wrong with them."""
    data, rng = file.read_bytes(), np.random.default_rng(0)
    empty = tmp_path / "empty.onnx"
    empty.touch()
    for source in (empty, b"", b"\xff" * 100_000, b"\x0b", tmp_path / "none.onnx"):
        assert eb.runtime._functions(source) == []
    for size in range(len(data)):
        assert eb.runtime._functions(data[:size]) in ([], ["BinaryLinear"])
    for _ in range(200):
        eb.runtime._functions(rng.bytes(int(rng.integers(1, 400))))
    with pytest.raises(FormatError, match="cannot load the model"):
        eb.runtime.InferenceSession(b"\xff" * 100)


def test_threads_are_those_asked_for(file):
    assert eb.runtime.InferenceSession(file).get_session_options().intra_op_num_threads == 1
    assert eb.runtime.InferenceSession(file, threads=2).get_session_options().intra_op_num_threads == 2
    for threads in (0, -1):
        with pytest.raises(InputError, match=f"threads is {threads}"):
            eb.runtime.InferenceSession(file, threads=threads)


def test_files_that_are_not_there(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(FileError, match=f"no file at {path}"):
            eb.runtime.InferenceSession(path)


def test_files_that_are_damaged(file, tmp_path):
    data = file.read_bytes()
    for content in (b"", b"hello", data[:50], data[: len(data) // 2], data[:-1]):
        path = tmp_path / "damaged.onnx"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"cannot load .*damaged\.onnx"):
            eb.runtime.InferenceSession(path)
        with pytest.raises(FormatError, match="cannot load the model"):
            eb.runtime.InferenceSession(content)


def test_the_operator_library_is_there():
    path = eb.runtime.library_path()
    assert path.is_file()
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(path))


def test_a_build_without_the_library_runs_files_in_stock_onnxruntime(file, monkeypatch):
    monkeypatch.setattr(eb.runtime, "_LIBRARY", "none.so")
    with pytest.raises(StateError, match="no operator library"):
        eb.runtime.library_path()
    assert np.array_equal(eb.runtime.InferenceSession(file).run(None, {"input": X})[0], Y)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
sys.path.insert(0, sys.argv[1])
import numpy
import equibit as eb
found = eb.runtime.InferenceSession(sys.argv[2], threads=1).run(None, {"input": numpy.eye(4, dtype="float32")})[0]
assert found.shape == (4, 3)
assert eb.bits.pack_bits([1, -1]).tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
try:
    import torch
except ImportError:
    print("ran")
"""


def test_the_runtime_needs_no_torch(file):
    source = Path(eb.__file__).parents[1]
    command = [sys.executable, "-c", WITHOUT_TORCH, source, file]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.stdout == "ran\n", process.stderr
