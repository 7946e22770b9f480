"""Signs in words between 1W1A layers: thresholds on integers that give the bits of the floats, and nothing else."""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from operator_files import words
from torch import nn

import equibit as eb
from equibit import activations, bits, kernels
from equibit.bench.twins import write_float
from equibit.errors import InputError
from equibit.export.words import _threshold
from equibit.kernels import _core

LEVELS = kernels.available()
F32 = np.float32
HOSTILE = [0.0, -0.0, 1.0, -1.0, 0.3, -0.3, 1e-45, -1e-45, 3e38, -3e38, np.inf, -np.inf, np.nan]


# --- the native layer ------------------------------------------------------------------------------------------------


def layer(w, scale, bias, level, *, pads=(0, 0, 0, 0), **arguments):
    """A 2-D convolution of signs that gives words; `w` (filters, channels, height, width), 0 where pruned."""
    rows = bits.filters_to_rows(w)
    packed = bits.pack_ternary(rows) if (w == 0).any() else (bits.pack_bits(rows), None)
    return _core.Convolution(
        *packed,
        scale,
        None,
        bias,
        kernel=[1, *w.shape[2:]],
        pads_begin=[0, *pads[:2]],
        pads_end=[0, *pads[2:]],
        channels=w.shape[1],
        output="words",
        level=level,
        **arguments,
    )


def run(built, x, batch, size, filters, threads=1):
    size = [1, *size]
    y = np.full((batch, -(-filters // 64), *built.output_size(size)[1:]), 2**64 - 1, np.uint64)
    built.run(x, None, y, batch, size, threads)
    return y


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("three", [False, True], ids=["two levels", "three levels"])
@pytest.mark.parametrize("filters", [33, 64, 200])
def test_words_of_a_convolution(filters, three, pad_value):
    """Odd sizes, all levels, one thread and two, floats and words as the input."""
    rng = np.random.default_rng(filters)
    channels, size, batch = int(rng.integers(1, 150)), [int(n) for n in rng.integers(3, 9, 2)], 3
    w = rng.choice([-1, 0, 1] if three else [-1, 1], (filters, channels, 3, 2)).astype(np.int8)
    w[0, 0, 0, 0] = 0 if three else 1
    x = rng.standard_normal((batch, channels, *size)).astype(F32)
    x[rng.random(x.shape) < 0.1] = -0.0
    scale, bias = rng.standard_normal((2, filters)).astype(F32)
    scale[rng.random(filters) < 0.1] = 0
    pads = [1, 0, 2, 1]
    dots = bits.conv_sums(
        np.where(x >= 0, 1, -1), w, stride=[1, 1], pads=pads, dilation=[1, 1], pad_value=pad_value
    ).astype(F32)
    expected = words(dots * scale[:, None, None] + bias[:, None, None])
    for level, threads, kind in itertools.product(LEVELS, (1, 2), ("sign", "words")):
        built = layer(w, scale, bias, level, pads=pads, input=kind, pad_value=pad_value)
        given = words(x) if kind == "words" else x
        assert np.array_equal(run(built, given, batch, size, filters, threads), expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n", [1, 2, 65])
def test_every_dot_product_has_the_bit_of_the_floats(n, level):
    """Scales and biases of every kind, also at each dot product's own border and its neighbours in float32."""
    dots = np.arange(-n, n + 1, 2).astype(F32)
    x = np.where(np.arange(n) < np.arange(n + 1)[:, None], F32(1), F32(-1))  # whose dot products with +1 they are
    pairs = list(itertools.product(HOSTILE, HOSTILE))
    for scale in (F32(0.3), F32(-1.7)):
        borders = -(dots * scale)
        near = np.concatenate([borders, np.nextafter(borders, F32(np.inf)), np.nextafter(borders, F32(-np.inf))])
        pairs += [(scale, bias) for bias in near]
    scale, bias = np.array(pairs, F32).T
    w = np.ones((len(pairs), n, 1, 1), np.int8)
    with np.errstate(all="ignore"):
        expected = words(np.where(dots[:, None] * scale + bias >= 0, 1, -1))
    built = layer(w, scale.copy(), bias.copy(), level, input="sign")
    for batch in (n + 1, 1):  # tiles, and single rows
        for first in range(0, n + 2 - batch, batch):
            got = run(built, x[first : first + batch, :, None, None].copy(), batch, [1, 1], len(pairs))
            assert np.array_equal(got[..., 0, 0], expected[first : first + batch])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "real"}, "only a layer of signs"),
        ({"input": "sign", "groups": 2}, "one group"),
        ({"input": "sign", "activation": "relu"}, "neither an offset nor an activation"),
        ({"input": "sign", "output": "bits"}, "Allowed: real, words"),
    ],
)
def test_wrong_layers_are_refused(changes, message):
    arguments = {"channels": 5, "output": "words"} | changes
    with pytest.raises(InputError, match=message):
        _core.Convolution(np.zeros((2, 8), np.uint8), None, np.ones(2, F32), None, None, **arguments)


def test_arrays_of_another_kind_are_refused():
    built = layer(np.ones((3, 5, 1, 1), np.int8), np.ones(3, F32), None, "", input="sign")
    x, y = np.zeros((1, 5, 1, 1), F32), np.zeros((1, 1, 1, 1), np.uint64)
    built.run(x, None, y, 1, [1, 1, 1], 1)
    with pytest.raises(InputError, match="uint64"):
        built.run(x, None, y.astype(F32), 1, [1, 1, 1], 1)
    with pytest.raises(InputError, match="does not have the size"):
        built.run(x, None, np.zeros((1, 3, 1, 1), np.uint64), 1, [1, 1, 1], 1)


# --- the exporter ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [[0, 0, 1], [-1, -2, -3], [2, 1, -1], [-1, -0.0, 5], [np.nan, 0, 1], [1, np.nan, -2]]
)
def test_a_threshold_has_the_signs_of_the_values(values):
    dots = np.array([-1, 0, 1], F32)
    scale, bias = _threshold(dots, np.array(values, F32))
    assert np.array_equal(scale * dots + bias >= 0, np.array(values) >= 0)


@pytest.mark.parametrize("values", [[1, -1, 1], [-1, 1, -1], [0, np.nan, 0]])
def test_signs_that_change_twice_have_none(values):
    assert _threshold(np.array([-1, 0, 1], F32), np.array(values, F32)) is None


def norm(filters, axes=2):
    """A batch norm with scales of both signs and zero."""
    made = (nn.BatchNorm1d if axes == 1 else nn.BatchNorm2d)(filters)
    nn.init.normal_(made.weight)
    made.weight.data[:: max(filters // 3, 1)] = 0.0
    nn.init.normal_(made.bias)
    nn.init.normal_(made.running_mean, std=5)
    nn.init.uniform_(made.running_var, 0.5, 40)
    return made


def conv(inputs, outputs, kernel=3, **arguments):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **arguments)


CHAINS = {
    "directly": lambda: [conv(9, 70)],
    "hardtanh": lambda: [conv(9, 70, bias=False), norm(70), nn.Hardtanh()],
    "relu, norm": lambda: [conv(9, 70), nn.ReLU(), norm(70)],
    "prelu": lambda: [conv(9, 70), norm(70), nn.PReLU(70, init=0.1), norm(70)],
    "pool": lambda: [conv(9, 70), nn.MaxPool2d(2), norm(70), nn.Hardtanh()],
    "relu, overlapping pool, norm": lambda: [conv(9, 70), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), norm(70)],
    "pool last": lambda: [conv(9, 70), norm(70), nn.Hardtanh(), nn.MaxPool2d(2)],
}


def network(middle):
    torch.manual_seed(1)
    first = [nn.Conv2d(3, 9, 3), *middle()]
    model = nn.Sequential(
        *first, conv(70, 20, bias=False), norm(20), conv(20, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return model.append(nn.Linear(8, 10))


def exported(model, path, x, pad_value=0.0, method="bi_half"):
    eb.binarize_(model, method, activation=activations.create("bireal", pad_value))
    eb.export_onnx(model.eval(), path, x)
    return [node.op_type for node in onnx.load(path).graph.node]


X = torch.randn(3, 3, 14, 13, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("chain", "pad_value"), list(zip(CHAINS, itertools.cycle([0.0, -1.0, 1.0]))))
def test_only_signs_lie_between_layers(chain, pad_value, tmp_path):
    """Stock onnxruntime and ours run words; both give what the file without words gives, layer by layer the model's."""
    model, path = network(CHAINS[chain]), tmp_path / "m.onnx"
    kinds = exported(model, path, X, pad_value)
    layers = ["XnorBinaryConvSign", "XnorWordsBinaryConvSign", "XnorWordsBinaryConv"]
    assert [kind for kind in kinds if "Binary" in kind] == layers
    assert ("WordsMaxPool" in kinds) == ("pool" in chain)
    assert not {"BatchNormalization", "MaxPool", "Clip", "Relu", "PRelu"} & set(kinds)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    stock = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"input": X.numpy()})[0]
    ours = eb.runtime.InferenceSession(path).run(None, {"input": X.numpy()})[0]
    # Everything up to the last layer is whole numbers; then sums of 20 and 8 terms.
    np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-5 * np.abs(stock).max())
    check = eb.verify_onnx(model, path, X)
    assert check.ok, check
    assert [layer.tolerance == 0 for layer in check.layers] == [True, True, False]
    write_float(path, tmp_path / "dense.onnx")
    assert "BitwiseOr" not in {node.op_type for node in onnx.load(tmp_path / "dense.onnx").graph.node}
    plain = onnxruntime.InferenceSession(tmp_path / "dense.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(plain.run(None, {"input": X.numpy()})[0], stock, rtol=0, atol=1e-5 * np.abs(stock).max())


def test_linear_layers(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 90), nn.Linear(90, 130), norm(130, 1), nn.Linear(130, 70), nn.Linear(70, 3))
    x = torch.randn(40, 5)
    kinds = exported(model, tmp_path / "m.onnx", x)
    assert [kind for kind in kinds if "Binary" in kind] == ["XnorBinaryLinearSign", "XnorWordsBinaryLinear"]
    assert eb.verify_onnx(model, tmp_path / "m.onnx", x).ok


def test_three_levels_of_weights(tmp_path):
    model = network(CHAINS["hardtanh"])
    kinds = exported(model, tmp_path / "m.onnx", X, method=eb.MultiPrize(density=0.6))
    assert "XnorWordsTernaryConvSign" in kinds
    assert eb.verify_onnx(model, tmp_path / "m.onnx", X).ok


FLOATS = {
    "another reader": lambda x, conv: conv(x) + x,
    "an activation that falls and rises": lambda x, conv: conv(nn.functional.prelu(x, torch.tensor([-1.0])) - 1.0),
    "a step that mixes places": lambda x, conv: conv(nn.functional.avg_pool2d(x, 2)),
    "a step over places": lambda x, conv: conv(x + torch.arange(float(x.shape[3]))),
    "two poolings": lambda x, conv: conv(nn.functional.max_pool2d(nn.functional.max_pool2d(x - 2.0, 2), 2)),
    "a pooling that rounds up": lambda x, conv: conv(nn.functional.max_pool2d(x, 2, ceil_mode=True)),
}


class Between(nn.Module):
    """Two layers with something between them."""

    def __init__(self, step, groups=1):
        super().__init__()
        self.first, self.second, self.step = conv(6, 12), conv(12, 12, groups=groups), step

    def forward(self, x):
        return self.step(self.first(x), self.second)


@pytest.mark.parametrize("step", FLOATS)
def test_floats_stay_where_more_than_signs_is_read(step, tmp_path):
    torch.manual_seed(0)
    model, x = Between(FLOATS[step]), torch.randn(2, 6, 12, 12)
    eb.binarize_(model, "bi_half", activation="bireal", skip=eb.nothing)
    eb.export_onnx(model.eval(), tmp_path / "m.onnx", x)
    kinds = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert not any("Words" in kind or "Sign" in kind for kind in kinds)
    assert eb.verify_onnx(model, tmp_path / "m.onnx", x).ok


def test_floats_stay_before_groups(tmp_path):
    model, x = Between(lambda x, conv: conv(x), groups=3), torch.randn(2, 6, 12, 12)
    eb.binarize_(model, "bi_half", activation="bireal", skip=eb.nothing)
    eb.export_onnx(model.eval(), tmp_path / "m.onnx", x)
    assert not any("Words" in node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node)


def changed(proto, slot, kind):
    """Edits a constant of the first node of that kind."""
    node = next(node for node in proto.graph.node if node.op_type == kind)
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == node.input[slot])
    value = numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(numpy_helper.from_array(value + 2 if value.dtype == F32 else ~value, tensor.name))


@pytest.mark.parametrize(("slot", "kind"), [(3, "XnorBinaryConvSign"), (1, "WordsMaxPool"), (2, "XnorBinaryConvSign")])
def test_verify_sees_a_wrong_threshold(slot, kind, tmp_path):
    """The bias one dot product further, the smallest signs in the place of the largest, another scale."""
    model, path = network(CHAINS["pool"]), tmp_path / "m.onnx"
    exported(model, path, X)
    proto = onnx.load(path)
    changed(proto, slot, kind)
    onnx.save(proto, path)
    assert not eb.verify_onnx(model, path, X).ok


def test_the_summary_and_the_benchmark_know_words(tmp_path):
    model, path = network(CHAINS["pool"]), tmp_path / "m.onnx"
    exported(model, path, X)
    found, wanted = eb.export.summarize_onnx(path), eb.summary(model, (1, *X.shape[1:]))
    assert [(a.kind, a.macs, a.activation) for a in found.layers if a.method] == [
        ("XnorBinaryConv", b.macs, "sign") for b in wanted.layers if b.method
    ]
