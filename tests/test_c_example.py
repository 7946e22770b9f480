"""examples/c: an exported file run through onnxruntime's plain C interface, compiled and run here."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from operator_files import model, poisoned, random_case, save

import equibit as eb
from equibit.packed.onnx_ops import Operator

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "examples" / "c" / "run_file.cpp"
COMPILER = shutil.which("g++") or shutil.which("clang++")
RUNTIME = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"), None)

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here"),
    pytest.mark.skipif(RUNTIME is None, reason="this onnxruntime has no library beside its Python module"),
]
CASE = random_case(Operator("Xnor", "Ternary", "Conv", "", "Clip"), "conv", 7)
INPUT, OUTPUT = "conv.X", "conv.Y"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / "run_file"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    include = ["-I", ROOT / "cpp" / "ort"]
    subprocess.run([COMPILER, "-std=c++17", *warnings, *include, SOURCE, "-o", path, "-ldl"], check=True)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """One layer, whose function body is wrong: only the operator library computes it."""
    proto = model([CASE], poisoned)
    node = proto.graph.node[0]
    node.input[0], node.output[0] = proto.graph.input[0].name, proto.graph.output[0].name = "input", "output"
    return save(proto, tmp_path_factory.mktemp("c") / "m.onnx")


def run(program, file, x, shape=None):
    words = [program, RUNTIME, eb.runtime.library_path(), file, *map(str, shape or x.shape)]
    return subprocess.run(words, input=x.tobytes(), capture_output=True, check=False)


@pytest.mark.parametrize("batch", [1, 5])
def test_the_program_gives_what_python_gives(program, file, batch):
    x = np.random.default_rng(batch).standard_normal((batch, *CASE.shape)).astype(np.float32)
    process = run(program, file, x)
    assert process.returncode == 0, process.stderr.decode()
    (expected,) = eb.runtime.InferenceSession(file).run(None, {"input": x})
    assert np.array_equal(np.array(process.stdout.split(), np.float32), expected.ravel())


def test_errors_are_messages(program, file, tmp_path):
    x = np.zeros((1, *CASE.shape), np.float32)
    for process, message in (
        (run(program, tmp_path / "none.onnx", x), b"none.onnx"),
        (run(program, file, x, shape=(2, *CASE.shape)), b"fewer values than the shape"),
        (run(program, file, x, shape=(x.size,)), b"rank"),
        (subprocess.run([program], capture_output=True, check=False), b"usage: run_file"),
        (subprocess.run([program, sys.executable, "x", "y", "1"], input=b"0000", capture_output=True), b"run_file: "),
    ):
        assert process.returncode == 1
        assert message.lower() in process.stderr.lower()
