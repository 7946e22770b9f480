"""equibit bench: what is compared, that it is what it says, and how it is measured."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import equibit as eb
from equibit.bench import measure, twins
from equibit.bench.engines import ENGINES, FLOAT, STOCK, Engine
from equibit.bench.measure import bench
from equibit.bench.worker import peak_rss_mb
from equibit.errors import FileError, FormatError, InputError, StateError
from equibit.runtime import InferenceSession


def exported(folder, name, activation=None):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.Flatten(),
        nn.Linear(576, 5),
    )
    eb.binarize_(model, "bi_half", activation=activation, skip=eb.first_and_last)
    eb.export_onnx(model.eval(), folder / name, torch.zeros(1, 3, 6, 6))
    return folder / name


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("bench"), "m.onnx")


EYE = np.eye(4, dtype=np.float32)


def linear(path, shape, kind=TensorProto.FLOAT, weight=EYE):
    """A foreign file: one MatMul."""
    ends = [helper.make_tensor_value_info("x", kind, shape), helper.make_tensor_value_info("y", kind, [shape[0], 4])]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "foreign",
        ends[:1],
        ends[1:],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_every_engine_is_measured_or_named_as_absent(file):
    report = bench(file, rounds=2)
    named = [result.engine for result in report.results] + [missing["engine"] for missing in report.absent]
    assert sorted(named) == sorted(ENGINES)
    assert len(ENGINES) == 11
    assert report.operator_library
    assert {"equibit", "onnxruntime", FLOAT, "onnxruntime-int8"} <= {result.engine for result in report.results}
    assert (report.cpu, report.kernel) == (eb.kernels.cpu_name(), eb.kernels.active())
    for result in report.results:
        assert 0 < result.p10_ms <= result.median_ms <= result.p90_ms
        assert result.runs >= 2
        assert 0 < result.load_ms < result.cold_ms
        assert 20 < result.import_rss_mb < result.peak_rss_mb < 1000
    by_name = {result.engine: result for result in report.results}
    assert by_name["equibit"].file_bytes == by_name["onnxruntime"].file_bytes == file.stat().st_size
    assert by_name[FLOAT].error <= 1e-5  # float32 sums, perhaps in another order
    assert 1e-5 < by_name["onnxruntime-int8"].error < 0.5  # 8 bits, and really another network
    json.dumps(report.to_dict())


@pytest.mark.parametrize("activation", [None, "bireal"])
def test_the_float_twin_is_dense_and_computes_the_same(activation, tmp_path):
    source = exported(tmp_path, "m.onnx", activation)
    twins.write_float(source, tmp_path / "float.onnx")
    dense = onnx.load(tmp_path / "float.onnx")
    assert not dense.functions
    assert {node.domain for node in dense.graph.node} == {""}
    assert sum(node.op_type in ("Conv", "Gemm") for node in dense.graph.node) == 3
    weights = [numpy_helper.to_array(t) for t in dense.graph.initializer]
    (binary,) = [w for w in weights if w.shape == (16, 8, 3, 3)]
    assert binary.dtype == np.float32
    assert all(len(np.unique(np.abs(row))) == 1 for row in binary)  # plus or minus one scale in a filter
    x = np.random.default_rng(1).standard_normal((7, 3, 6, 6)).astype(np.float32)
    name = dense.graph.input[0].name
    outputs = [InferenceSession(p).run(None, {name: x})[0] for p in (source, tmp_path / "float.onnx")]
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir() if "flat" in p.name] == []


def test_the_int8_twin_is_int8(file, tmp_path):
    twins.write_float(file, tmp_path / "float.onnx")
    twins.write_int8(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    model = onnx.load(tmp_path / "int8.onnx")
    kinds = {tuple(t.dims): t.data_type for t in model.graph.initializer if len(t.dims) == 4}
    assert set(kinds.values()) == {TensorProto.INT8}
    assert len(kinds) == 2
    assert (tmp_path / "int8.onnx").stat().st_size < (tmp_path / "float.onnx").stat().st_size


def test_a_wrong_float_twin_is_an_error(file, monkeypatch):
    def wrong(source, target):
        model = onnx.load(source)
        bits = next(t for t in model.graph.initializer if t.data_type == TensorProto.UINT8)
        bits.CopyFrom(numpy_helper.from_array(~numpy_helper.to_array(bits), bits.name))
        onnx.save(model, target)

    monkeypatch.setattr(twins, "write_float", wrong)
    with pytest.raises(StateError, match="float twin does not compute"):
        bench(file, rounds=1)


def test_a_foreign_file_is_its_own_float_twin(tmp_path):
    report = bench(linear(tmp_path / "f.onnx", [2, 4]), batch=2, rounds=1)
    assert FLOAT in {result.engine for result in report.results}
    with pytest.raises(InputError, match="fixed batch size 2, and batch is 3; give 2"):
        bench(tmp_path / "f.onnx", batch=3, rounds=1)


@pytest.mark.parametrize(
    ("shape", "kind", "weight"),
    [
        (["batch", "width"], TensorProto.FLOAT, EYE),
        (["batch", 4], TensorProto.INT64, np.eye(4, dtype=np.int64)),
    ],
)
def test_inputs_it_cannot_make(shape, kind, weight, tmp_path):
    with pytest.raises(FormatError, match="the input 'x' is tensor"):
        bench(linear(tmp_path / "f.onnx", shape, kind, weight), rounds=1)


def test_wrong_arguments(file, tmp_path):
    for name in ("threads", "batch", "rounds", "starts"):
        with pytest.raises(InputError, match=f"{name} is 0"):
            bench(file, **{name: 0})
    with pytest.raises(FileError, match="no file at"):
        bench(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(FormatError, match="cannot load"):
        bench(tmp_path / "text.onnx")


def test_absent_engines_say_why(file, monkeypatch):
    fails = Engine("given", "numpy", lambda path, threads: 1 / 0)
    missing = Engine("given", "no_such_package", fails.open)
    monkeypatch.setattr(measure, "ENGINES", {STOCK: ENGINES[STOCK], "missing": missing})
    (absent,) = bench(file, rounds=1).absent
    assert absent == {"engine": "missing", "reason": "no_such_package is not installed"}
    command = [sys.executable, "-m", "equibit.bench.worker", "openvino", "none.onnx", "x", "y", "1", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "error" in json.loads(done.stdout)


def test_torch_runs_a_program_of_the_network(file, tmp_path, monkeypatch):
    """And every start of an engine counts; what is compiled is too slow for a test."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 5)).eval()
    torch.export.save(torch.export.export(network, (torch.zeros(1, 3, 6, 6),)), tmp_path / "torch.pt2")
    monkeypatch.setattr(measure, "ENGINES", {name: ENGINES[name] for name in (STOCK, "torch", "torch-bf16")})
    report = bench(file, rounds=1, starts=2, programs={"torch": tmp_path / "torch.pt2"})
    found = {result.engine: result for result in report.results}
    assert set(found) == {STOCK, "torch"}
    assert found["torch"].version == torch.__version__
    assert found["torch"].file_bytes == (tmp_path / "torch.pt2").stat().st_size
    assert found["torch"].error > 0.1  # this is another network
    assert all(len(result.cold_all_ms) == 2 for result in report.results)
    assert [absent["engine"] for absent in report.absent] == ["torch-bf16"]


def test_an_engine_with_outputs_that_are_no_numbers_is_absent(file, monkeypatch):
    monkeypatch.setattr(measure, "_relative_error", lambda found, expected: float("nan"))
    monkeypatch.setattr(measure, "ENGINES", {STOCK: ENGINES[STOCK]})
    report = bench(file, rounds=1)
    assert report.results == ()
    assert report.absent == ({"engine": STOCK, "reason": measure._WRONG},)


def test_nothing_is_left_behind(file, tmp_path, monkeypatch):
    """Interrupted in a round: no process and no file remain."""
    monkeypatch.setattr(measure.tempfile, "tempdir", str(tmp_path))
    started = []
    original = measure.subprocess.Popen

    def remember(*args, **kwargs):
        started.append(original(*args, **kwargs))
        return started[-1]

    def interrupt(_number):
        assert list(tmp_path.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(measure.subprocess, "Popen", remember)
    with pytest.raises(KeyboardInterrupt):
        bench(file, on_round=interrupt)
    assert len(started) >= 4
    assert all(process.returncode is not None for process in started)
    assert not list(tmp_path.iterdir())


def test_a_worker_ends_with_its_parent(file, tmp_path):
    """It reads the end of its standard input, which the system closes with the parent."""
    np.savez(tmp_path / "in.npz", np.zeros((1, 3, 6, 6), np.float32))
    words = ["onnxruntime", str(file), str(tmp_path / "in.npz"), str(tmp_path / "out.npz"), "1", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "equibit.bench.worker", *words],
        input="3\n\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    opened, times, memory = map(json.loads, done.stdout.splitlines())
    assert set(opened) == {"load_ms", "cold_ms", "run_ms", "import_rss_mb"}
    assert len(times) == 3
    assert memory["peak_rss_mb"] > 10
    assert done.returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what Linux's getrusage counts")
def test_peak_memory_is_the_process_s_own():
    """A child of a fat parent: getrusage would report the parent's peak."""
    ballast = np.ones(40_000_000)  # 320 MB
    code = "from equibit.bench.worker import peak_rss_mb; print(peak_rss_mb())"
    child = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert child < 320 <= ballast.nbytes / 1e6 <= peak_rss_mb()


def test_the_order_of_turns_changes():
    """No engine always follows the same one; every engine has one turn in each round."""

    class Recorder:
        def __init__(self, name):
            self.name = name

        def take_turn(self):
            turns.append(self.name)

    turns, rounds = [], []
    measure._take_turns([Recorder(name) for name in "abcd"], 20, 0.0, rounds.append)
    assert rounds == list(range(1, 21))
    orders = [tuple(turns[i : i + 4]) for i in range(0, 80, 4)]
    assert all(sorted(order) == list("abcd") for order in orders)
    assert len(set(orders)) > 5
