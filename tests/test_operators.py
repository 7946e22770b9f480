"""The operator library: every operator, on every level of this CPU, against its function body in stock onnxruntime."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from operator_files import OPERATORS, inputs, model, poisoned, random_case, save, shape_of_output, without

import equibit as eb
from equibit.errors import FormatError
from equibit.packed.onnx_ops import Operator

CASES = [random_case(operator, f"node{i}", i) for i, operator in enumerate(OPERATORS)]
BATCHES = (1, 3)


def feeds(cases, batch):
    return {name: value for case in cases for name, value in inputs(case, batch).items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """All operators in one file, the same with wrong function bodies, and what stock onnxruntime makes of the first."""
    folder = tmp_path_factory.mktemp("operators")
    save(model(CASES, poisoned), folder / "native.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    stock = onnxruntime.InferenceSession(model(CASES).SerializeToString(), options, providers=["CPUExecutionProvider"])
    for batch in BATCHES:
        np.savez(folder / f"inputs{batch}.npz", **feeds(CASES, batch))
        np.savez(folder / f"stock{batch}.npz", *stock.run(None, feeds(CASES, batch)))
    return folder


NATIVE = """
import sys
sys.modules["torch"] = None
import numpy
import equibit as eb
folder, level = sys.argv[1:]
assert eb.kernels.active() == level
for batch in (1, 3):
    inputs = dict(numpy.load(f"{folder}/inputs{batch}.npz"))
    for threads in (1, 2):
        session = eb.runtime.InferenceSession(f"{folder}/native.onnx", threads=threads)
        numpy.savez(f"{folder}/{level}{batch}{threads}.npz", *session.run(None, inputs))
"""


def run_level(level, *command):
    """A process in which EQUIBIT_KERNEL names the level."""
    environment = os.environ | {"EQUIBIT_KERNEL": level}
    return subprocess.run(
        [sys.executable, "-c", *command], capture_output=True, text=True, env=environment, check=False
    )


def test_the_cases_are_all_operators():
    assert (
        len({operator.name for operator in OPERATORS})
        == len(OPERATORS)
        == 3 * 3 * 3 * 2 * 4 + 3 * 2 * 2 * 4 + 2 * 2 * 2
    )
    assert all(Operator.of(operator.name) == operator for operator in OPERATORS)


@pytest.mark.parametrize("level", eb.kernels.available())
def test_every_operator_on_every_level(files, level):
    process = run_level(level, NATIVE, files, level)
    assert process.returncode == 0, process.stderr
    for batch in BATCHES:
        stock = np.load(files / f"stock{batch}.npz")
        one, two = (np.load(files / f"{level}{batch}{threads}.npz") for threads in (1, 2))
        for case, key in zip(CASES, stock, strict=True):
            expected, size = stock[key], 1 + np.abs(stock[key]).max(initial=0)
            if case.operator.sign:
                assert np.array_equal(one[key], expected), case
                continue
            # At most 600 float32 terms of size about 1, added in another order: a few eps of the largest sum.
            np.testing.assert_allclose(one[key], expected, rtol=0, atol=1e-5 * size, err_msg=str(case))
            assert np.array_equal(one[key], two[key]), case  # the threads share the work, not a sum


def test_levels_give_the_same_integers(files):
    """Sums of signs and of 8-bit values are exact, and the rest is rounded in the same order at every level."""
    exact = [i for i, case in enumerate(CASES) if case.operator.input]
    assert len(exact) == 144 + 56
    first, *others = [np.load(files / f"{level}31.npz") for level in eb.kernels.available()]
    for other in others:
        assert all(np.array_equal(first[f"arr_{i}"], other[f"arr_{i}"]) for i in exact)


# --- sessions --------------------------------------------------------------------------------------------------------

NETWORK = [replace(CASES[i], name=f"layer{i}") for i in range(0, len(CASES), 9)]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return save(model(NETWORK, poisoned), tmp_path_factory.mktemp("network") / "n.onnx")


def test_the_batch_is_free(network):
    """Each batch size in turn in one session, and the rows of a batch are computed one like the other."""
    session = eb.runtime.InferenceSession(network)
    whole = session.run(None, feeds(NETWORK, 5))
    for first, last in ((0, 1), (1, 3), (0, 5), (4, 5)):
        part = session.run(None, {name: value[first:last] for name, value in feeds(NETWORK, 5).items()})
        for found, expected in zip(part, whole, strict=True):
            np.testing.assert_allclose(found, expected[first:last], rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_an_empty_batch_gives_an_empty_output(network):
    for found, case in zip(eb.runtime.InferenceSession(network).run(None, feeds(NETWORK, 0)), NETWORK, strict=True):
        assert found.shape == (0, *shape_of_output(case))


def test_runs_of_one_session_at_the_same_time(network):
    session = eb.runtime.InferenceSession(network, threads=2)
    wanted = {batch: session.run(None, feeds(NETWORK, batch)) for batch in (1, 2, 3, 4)}
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for batch, found in zip(
                wanted, pool.map(lambda n: session.run(None, feeds(NETWORK, n)), wanted), strict=True
            ):
                assert all(map(np.array_equal, found, wanted[batch]))


def test_sessions_side_by_side(network):
    sessions = [eb.runtime.InferenceSession(network, threads=threads) for threads in (1, 2, 1)]
    first, *others = [session.run(None, feeds(NETWORK, 2)) for session in sessions]
    for other in others:
        assert all(map(np.array_equal, first, other))
    del sessions
    again = eb.runtime.InferenceSession(network).run(None, feeds(NETWORK, 2))
    assert all(map(np.array_equal, first, again))


@pytest.mark.parametrize("told", [None, "1", "7"])
def test_the_library_need_not_know_the_session_s_threads(network, told):
    expected = eb.runtime.InferenceSession(network).run(None, feeds(NETWORK, 3))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2 if told == "1" else 1
    if told is not None:
        options.add_session_config_entry("equibit.threads", told)
    options.register_custom_ops_library(str(eb.runtime.library_path()))
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    assert all(map(np.array_equal, session.run(None, feeds(NETWORK, 3)), expected))


def test_a_linear_layer_takes_any_number_of_dimensions(tmp_path):
    case = random_case(Operator("", "Binary", "Linear", "Add", "Relu"), "fc", 1)
    proto = model([case], poisoned)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.ClearField("shape")
    session = eb.runtime.InferenceSession(proto.SerializeToString())
    flat = inputs(case, 12)
    (expected,) = session.run(None, flat)
    for rows in ((12,), (3, 4), (2, 3, 2), (1, 1, 12, 1, 1)):
        (found,) = session.run(None, {name: x.reshape(*rows, -1) for name, x in flat.items()})
        assert np.array_equal(found, expected.reshape(*rows, -1))
    (found,) = session.run(None, {name: x[0] for name, x in flat.items()})
    np.testing.assert_allclose(found, expected[0], rtol=1e-5, atol=1e-5)


# --- what is refused -------------------------------------------------------------------------------------------------

CONV = random_case(Operator("Xnor", "Ternary", "Conv", "Add", "PRelu"), "stages.0.conv1", 5)
ROUNDED = random_case(Operator("Int8", "Binary", "Linear"), "fc", 6)


def constant(name, value):
    """The convolution with another constant."""
    return replace(CONV, constants=CONV.constants | {name: np.asarray(value)})


def attribute(name, value, case=CONV):
    return replace(case, attributes=case.attributes | {name: value})


FILTERS, AXES = CONV.output[0], len(CONV.shape) - 1
HOSTILE = {
    "rows too short": constant("bits", CONV.constants["bits"][:, :-8]),
    "a row too few": constant("bits", CONV.constants["bits"][:-1]),
    "no rows": constant("bits", np.zeros((0, 0), np.uint8)),
    "mask of another size": constant("mask", CONV.constants["mask"][1:]),
    "a scale too few": constant("scale", CONV.constants["scale"][1:]),
    "bias as a matrix": constant("bias", CONV.constants["bias"][None]),
    "slopes for other filters": constant("slope", np.ones(FILTERS + 1, np.float32)),
    **{f"no {name}": without(CONV, name) for name in CONV.attributes},
    "no filters": attribute("shape", [0, *CONV.attributes["shape"][1:]]),
    "an overflow": attribute("shape", [2**40, *CONV.attributes["shape"][1:]]),
    "a kernel of six axes": attribute("shape", [FILTERS, 1, 1, 1, 1, 1, 1, 1]),
    "strides of another length": attribute("strides", [1] * (AXES + 1)),
    "a stride of 0": attribute("strides", [0] * AXES),
    "a negative dilation": attribute("dilations", [-1] * AXES),
    "a negative pad": attribute("pads", [-1] * 2 * AXES),
    "groups that do not divide": attribute("group", FILTERS + 1),
    "no groups": attribute("group", 0),
    "another order of rows": attribute("perm", [0, *range(1, AXES + 2)][::-1]),
    "a pad of 2": attribute("pad_value", 2.0),
    "an input scale of 0": attribute("input_scale", 0.0, ROUNDED),
    "an input scale of NaN": attribute("input_scale", float("nan"), ROUNDED),
    "no input scale": without(ROUNDED, "input_scale"),
}


@pytest.mark.parametrize("wrong", HOSTILE)
def test_a_damaged_node_is_an_error_that_names_the_layer(wrong, tmp_path):
    path = save(model([HOSTILE[wrong]], poisoned), tmp_path / "h.onnx")
    with pytest.raises(FormatError, match=rf"cannot load .*h\.onnx.*layer '{HOSTILE[wrong].name}'"):
        eb.runtime.InferenceSession(path)


def test_the_right_nodes_load():
    for case in (CONV, ROUNDED):
        eb.runtime.InferenceSession(model([case], poisoned).SerializeToString())


def test_weights_that_are_computed_are_refused():
    proto = model([ROUNDED], poisoned)
    proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == "fc.bits"))
    shape = ROUNDED.constants["bits"].shape
    proto.graph.input.append(helper.make_tensor_value_info("fc.bits", TensorProto.UINT8, shape))
    with pytest.raises(FormatError, match=r"layer 'fc': the input bits is not a constant"):
        eb.runtime.InferenceSession(proto.SerializeToString())


def test_padding_bits_are_not_read():
    """As in the function body; `verify` and the packed checkpoint refuse them."""
    case = random_case(Operator("Xnor", "Binary", "Linear"), "fc", 3)
    n = case.attributes["shape"][1]
    assert n % 64
    marked = case.constants["bits"] | np.packbits(
        np.arange(8 * case.constants["bits"].shape[1]) >= n, bitorder="little"
    )
    sessions = [
        eb.runtime.InferenceSession(model([c], poisoned).SerializeToString())
        for c in (case, replace(case, constants=case.constants | {"bits": marked}))
    ]
    clean, dirty = (session.run(None, inputs(case, 2))[0] for session in sessions)
    assert np.array_equal(clean, dirty)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda x, r: (x[:, :-1], r), r"must have \d dimensions and \d+ channels"),
        (lambda x, r: (x[..., 0], r), r"must have \d dimensions"),
        (lambda x, r: (x[..., :0], r), r"layer 'stages\.0\.conv1'"),
        (lambda x, r: (x, r[:, 1:]), "the residual has the shape"),
        (lambda x, r: (x[:1], r), "the residual has the shape"),
    ],
)
def test_inputs_that_do_not_fit_are_an_error_that_names_the_layer(edit, message):
    proto = model([CONV], poisoned)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.ClearField("shape")
    session = eb.runtime.InferenceSession(proto.SerializeToString())
    names, values = zip(*inputs(CONV, 2).items(), strict=True)
    with pytest.raises(Exception, match=r"layer 'stages\.0\.conv1': ") as caught:  # onnxruntime's own kinds
        session.run(None, dict(zip(names, edit(*values), strict=True)))
    caught.match(message)
    (found,) = session.run(None, dict(zip(names, values, strict=True)))
    assert np.isfinite(found).all()


def test_an_unknown_level_is_an_error_that_lists_the_ones_here(network):
    code = "import sys, equibit as eb; eb.runtime.InferenceSession(sys.argv[1])"
    process = run_level("avx1024", code, network)
    assert "InputError" in process.stderr
    wanted = "EQUIBIT_KERNEL=avx1024 is not a kernel level. Available here: "
    assert wanted + " ".join(eb.kernels.available()) in process.stderr


@pytest.mark.parametrize("entry", ["0", "-3", "many"])
def test_a_wrong_number_of_threads_is_an_error(entry):
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("equibit.threads", entry)
    with pytest.raises(Exception, match=r"equibit\.threads is"):  # onnxruntime's own kinds
        options.register_custom_ops_library(str(eb.runtime.library_path()))
