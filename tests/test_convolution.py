"""The native layer of `_core.Convolution` against plain sums in float64, at every level this CPU runs.

Sums of signs and of int8 are exact, and the epilogue rounds step by step: those results are compared bit for bit.
"""

import itertools
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from tile_levels import COMPILER, EMULATOR

from equibit import bits, kernels
from equibit.errors import FormatError, InputError
from equibit.kernels import _core

CPP = Path(__file__).parents[1] / "cpp"
LEVELS = kernels.available()
KINDS = ("real", "sign", "int8")
F32 = np.float32
INPUT_SCALE = F32(0.05)


class Case:
    """A random layer with its input. Small sizes, but every combination of what the layers allow."""

    def __init__(self, seed, kind):
        self.rng, self.kind = np.random.default_rng(seed), kind
        rng = self.rng
        self.axes = int(rng.integers(0, 4))
        self.transposed = self.axes > 0 and rng.random() < 0.3
        self.groups = int(rng.choice([1, 1, 2, 3])) if self.axes else 1
        self.channels = int(rng.choice([1, 2, 3, 5, 8, 16, 33, 64, 65, 70]))
        self.filters = self.groups * int(rng.choice([1, 2, 3, 8, 17, 20, 33]))
        self.batch = int(rng.choice([0, 1, 1, 3, 5, 33] if self.axes < 3 else [1, 2]))
        self.geometry()
        self.weights()
        self.epilogue()
        shape = (self.batch, self.groups * self.channels, *self.size)
        self.x = rng.standard_normal(shape).astype(F32)
        self.x[rng.random(shape) < 0.05] = 0.0  # whose sign is +1
        self.x[rng.random(shape) < 0.05] = -0.0

    def draw(self, low, high):
        return [int(v) for v in self.rng.integers(low, high, self.axes)]

    def geometry(self):
        self.kernel, self.stride, self.dilation = self.draw(1, 4), self.draw(1, 4), self.draw(1, 3)
        begin, end = self.draw(0, 3), self.draw(0, 3)
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        self.size, self.extra = self.draw(1, 9), [0] * self.axes
        if self.transposed:
            most = [max(s, d) for s, d in zip(self.stride, self.dilation, strict=True)]
            self.extra = [int(self.rng.integers(0, m)) for m in most]
            begin, end = ([min(p, r // 2) for p, r in zip(pads, reach, strict=True)] for pads in (begin, end))
            begin = [b if r + e - b - p > 0 else 0 for b, p, r, e in zip(begin, end, reach, self.extra, strict=True)]
        else:
            least = [max(1, r - b - e) for r, b, e in zip(reach, begin, end, strict=True)]
            self.size = [max(s, m) for s, m in zip(self.size, least, strict=True)]
        self.pads = [*begin, *end]
        self.pad_value = int(self.rng.choice([-1, 0, 1])) if self.kind == "sign" and not self.transposed else 0

    def weights(self, levels=None):
        self.levels = levels or str(self.rng.choice(["two", "offset", "three"]))
        shape = (self.filters, self.channels, *self.kernel)
        self.w = self.rng.choice(np.array([-1, 1], np.int8), size=shape)
        if self.levels == "three":
            self.w *= self.rng.integers(0, 2, shape, np.int8)
        rows = bits.filters_to_rows(self.w) if self.axes else self.w
        self.bits, self.mask = bits.pack_ternary(rows) if self.levels == "three" else (bits.pack_bits(rows), None)

    def epilogue(self):
        def numbers():
            return self.rng.standard_normal(self.filters).astype(F32)

        self.scale = abs(numbers()) + F32(0.1)
        self.offset = numbers() if self.levels == "offset" else None
        self.bias = numbers() if self.rng.random() < 0.7 else None
        self.activation = str(self.rng.choice(["none", "relu", "prelu", "hardtanh"]))
        self.slope = numbers() if self.activation == "prelu" else None
        self.with_residual = self.rng.random() < 0.5

    def seen(self):
        """The input as the weights see it."""
        if self.kind == "sign":
            return np.where(self.x >= 0, 1.0, -1.0)
        return np.clip(np.rint(self.x / INPUT_SCALE), -127, 127) if self.kind == "int8" else self.x

    def sums(self, x, w):
        if not self.axes:
            return x.astype(np.float64) @ w.astype(np.float64).T
        arguments = {"stride": self.stride, "pads": self.pads, "dilation": self.dilation, "groups": self.groups}
        if self.transposed:
            return bits.conv_transpose_sums(x, w, **arguments, output_padding=self.extra)
        return bits.conv_sums(x, w, **arguments, pad_value=self.pad_value)

    def per_filter(self, values):
        return values.reshape(-1, *(1,) * self.axes)

    def finished(self, dots, totals, residual, dtype):
        """The epilogue, each step rounded to `dtype`; integers times both scales in float32."""
        unit = INPUT_SCALE if self.kind == "int8" else F32(1)
        y = dots.astype(dtype) * self.per_filter(self.scale * unit).astype(dtype)
        if self.offset is not None:
            y = y + self.per_filter(self.offset * unit).astype(dtype) * totals.astype(dtype)
        for term in (None if self.bias is None else self.per_filter(self.bias), residual):
            y = y if term is None else y + term.astype(dtype)
        if self.activation == "relu":
            return np.where(y < 0, dtype(0), y)
        if self.activation == "prelu":
            return np.where(y < 0, y * self.per_filter(self.slope).astype(dtype), y)
        return np.clip(y, -1, 1) if self.activation == "hardtanh" else y

    def layer(self, level=""):
        def three(values, fill):
            return [fill] * (3 - self.axes) + list(values)

        return _core.Convolution(
            self.bits,
            self.mask,
            self.scale,
            self.offset,
            self.bias,
            kernel=three(self.kernel, 1),
            stride=three(self.stride, 1),
            dilation=three(self.dilation, 1),
            pads_begin=three(self.pads[: self.axes], 0),
            pads_end=three(self.pads[self.axes :], 0),
            channels=self.channels,
            groups=self.groups,
            transposed=self.transposed,
            output_padding=three(self.extra, 0),
            input=self.kind,
            pad_value=self.pad_value,
            input_scale=float(INPUT_SCALE),
            activation=self.activation,
            slope=self.slope,
            level=level,
        )

    def run(self, layer, residual, threads):
        size = [1] * (3 - self.axes) + self.size
        y = np.full((self.batch, self.filters, *layer.output_size(size)[3 - self.axes :]), np.nan, F32)
        layer.run(self.x, residual, y, self.batch, size, threads)
        return y


def check(case):
    seen = case.seen()
    dots, totals = case.sums(seen, case.w), case.sums(seen, np.ones_like(case.w))
    residual = case.rng.standard_normal(dots.shape).astype(F32) if case.with_residual else None
    dtype = np.float64 if case.kind == "real" else F32
    expected = case.finished(dots, totals, residual, dtype)
    for level, threads in itertools.product(LEVELS, (1, 2)):
        layer = case.layer(level)
        assert layer.level == level
        got = case.run(layer, residual, threads)
        assert got.shape == expected.shape
        if case.kind != "real":
            np.testing.assert_array_equal(got, expected)
            continue
        # 4 eps sqrt(K) of the norm of what is summed, and the roundings of the epilogue's five steps.
        n, eps = case.w[0].size, np.finfo(F32).eps
        norm = np.sqrt(case.sums(seen.astype(np.float64) ** 2, np.ones_like(case.w)))
        slope = 1 if case.slope is None else np.maximum(1, abs(case.per_filter(case.slope)))
        parts = case.per_filter(case.scale) * (norm * 4 * np.sqrt(n) + 4 * abs(dots))
        if case.offset is not None:
            parts = parts + abs(case.per_filter(case.offset)) * (norm * 4 * np.sqrt(n) + 4 * abs(totals))
        others = abs(0 if case.bias is None else case.per_filter(case.bias)) + abs(0 if residual is None else residual)
        assert (abs(got - expected) <= eps * slope * (parts + 4 * others)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(40))
def test_random_layers_equal_plain_sums(kind, seed):
    check(Case(seed, kind))


def conv2d(channels, filters, size, kind="real", **changes):
    """A 3x3 convolution with padding 1, changed where said."""
    case = Case(changes.pop("seed", 0), kind)
    case.axes, case.transposed, case.groups = 2, False, changes.pop("groups", 1)
    case.channels, case.filters, case.size = channels, filters, [size, size]
    case.batch = changes.pop("batch", 1)
    case.kernel = case.stride = case.dilation = [1, 1]
    case.kernel, case.pads, case.extra, case.pad_value = [3, 3], [1] * 4, [0, 0], 0
    levels = changes.pop("levels", None)
    for name, value in changes.items():
        setattr(case, name, value)
    case.weights(levels)
    case.epilogue()
    case.x = case.rng.standard_normal((case.batch, case.groups * channels, size, size)).astype(F32)
    return case


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": 64, "filters": 64, "size": 8, "batch": 2},
        {"channels": 128, "filters": 96, "size": 4},
        {"channels": 128, "filters": 16, "size": 4, "batch": 5},
        {"channels": 72, "filters": 20, "size": 7, "batch": 3},
        {"channels": 16, "filters": 40, "size": 17, "stride": [2, 2]},
        {"channels": 1, "filters": 24, "size": 9, "groups": 24},
        {"channels": 64, "filters": 33, "size": 10, "kernel": [1, 1], "pads": [0] * 4, "stride": [2, 2]},
        {"channels": 130, "filters": 18, "size": 1},
        {"channels": 8, "filters": 18, "size": 40, "kernel": [1, 7], "pads": [0, 3, 0, 3]},
    ],
    ids=str,
)
def test_layers_of_networks_equal_plain_sums(kind, arguments):
    check(conv2d(kind=kind, **arguments))


def depthwise(maps, size, kind, **changes):
    """A depthwise convolution whose weights the kernel for whole maps takes."""
    return conv2d(1, changes.pop("filters", maps), size, kind, groups=maps, levels="two", **changes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stride": [2, 2]},
        {"stride": [2, 2], "pads": [0] * 4},
        {"pads": [2, 0, 1, 3]},
        {"kernel": [5, 5], "pads": [2] * 4},
        {"kernel": [5, 5], "pads": [2] * 4, "stride": [2, 2]},
        {"kernel": [7, 7], "pads": [3] * 4},
        {"kernel": [2, 4], "pads": [1, 3, 0, 2], "stride": [1, 2]},
        {"dilation": [2, 3], "pads": [2, 3, 2, 3]},
        {"stride": [3, 1]},
        {"stride": [1, 3]},
        {"kernel": [1, 33], "pads": [0, 16, 0, 16]},
        {"filters": 15},
    ],
    ids=str,
)
def test_depthwise_layers_equal_plain_sums(kind, changes):
    for seed, size in enumerate((1, 7, 8, 13, 16, 24, 39)):
        case = depthwise(5, size, kind, seed=seed, batch=1 + seed % 3, **changes)
        reach = [d * (k - 1) + 1 for d, k in zip(case.dilation, case.kernel, strict=True)]
        if all(size + sum(case.pads[axis::2]) >= reach[axis] for axis in range(2)):
            check(case)


@pytest.mark.parametrize("kind", KINDS)
def test_depthwise_layers_of_three_levels_and_of_large_maps(kind):
    check(conv2d(1, 12, 15, kind, groups=6, levels="three", seed=3))
    check(depthwise(3, 150, kind, seed=4))
    check(depthwise(3, 150, kind, seed=5, stride=[2, 2]))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("stride", [1, 2])
def test_special_values_of_depthwise_layers(level, stride):
    """What is not finite reaches the places of its own map that read it, and no others."""
    case = depthwise(4, 20, "real", stride=[stride] * 2)
    case.w = np.ones_like(case.w)
    case.bits = bits.pack_bits(bits.filters_to_rows(case.w))
    case.activation, case.slope = "none", None
    case.x[0, 1, 0, 0] = np.inf
    case.x[0, 2, 19, 19] = np.nan
    y = case.run(case.layer(level), None, 1)
    infinite, nans = np.isposinf(y), np.isnan(y)
    assert infinite[0, 1, : 2 // stride, : 2 // stride].all()
    assert infinite.sum() == (2 // stride) ** 2
    assert nans[0, 2, -(2 // stride) :, -(2 // stride) :].all()
    assert nans.sum() == (2 // stride) ** 2


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("channels", [1, 3, 5, 16, 21, 22, 31, 32, 33])
def test_words_that_hold_several_taps(channels, pad_value):
    for seed, levels in enumerate(("two", "offset", "three")):
        check(conv2d(channels, 10, 9, "sign", pad_value=pad_value, levels=levels, seed=seed))
        changes = {"kernel": [5, 4], "pads": [2, 1, 2, 2], "stride": [2, 1], "groups": 2}
        check(conv2d(channels, 40, 7, "sign", pad_value=pad_value, levels=levels, seed=seed, batch=2, **changes))


@pytest.mark.parametrize("kind", KINDS)
def test_one_input_place_with_several_outputs(kind):
    """No linear layer, though its kernel and its input are one place."""
    point = {"kernel": [1, 1], "pads": [0] * 4, "stride": [1, 3], "transposed": True, "extra": [0, 2]}
    check(conv2d(8, 20, 1, kind, batch=3, **point))


def rows(count, n, filters, kind):
    """A linear layer."""
    case = Case(0, kind)
    case.axes, case.transposed, case.groups, case.pad_value = 0, False, 1, 0
    case.kernel = case.stride = case.dilation = case.pads = case.extra = case.size = []
    case.channels, case.filters, case.batch = n, filters, count
    case.weights()
    case.epilogue()
    case.x = case.rng.standard_normal((count, n)).astype(F32)
    return case


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "n", "filters"), [(1, 1, 1), (1, 300, 70), (8, 64, 33), (9, 65, 40), (70, 129, 17)])
def test_linear_layers_equal_plain_sums(kind, count, n, filters):
    check(rows(count, n, filters, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_may_overwrite_the_residual(kind):
    case = conv2d(64, 24, 6, kind)
    layer = case.layer()
    residual = case.rng.standard_normal((1, 24, 6, 6)).astype(F32)
    expected = case.run(layer, residual, 1)
    layer.run(case.x, residual, residual, 1, [1, 6, 6], 1)
    np.testing.assert_array_equal(residual, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_any_size_by_turns_and_from_several_threads(kind):
    """More sizes than a layer keeps tables for, four callers at once, each of which may use two threads."""
    sizes = range(3, 21)
    case = conv2d(20, 24, 3, kind)
    layer, failures = case.layer(), []
    images = {n: case.rng.standard_normal((2, 20, n, n)).astype(F32) for n in sizes}

    def run(n, threads):
        y = np.empty((2, 24, n, n), F32)
        layer.run(images[n], None, y, 2, [1, n, n], threads)
        return y

    expected = {n: run(n, 1) for n in sizes}

    def check_all(seed):
        for n in np.random.default_rng(seed).permutation(sizes):
            if not np.array_equal(run(int(n), 2), expected[n]):
                failures.append(n)

    callers = [threading.Thread(target=check_all, args=(seed,)) for seed in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


@pytest.mark.parametrize("level", LEVELS)
def test_special_values(level):
    """What is not finite reaches the outputs that read it, and no others; a NaN counts as -1 or 0 among integers."""
    case = conv2d(16, 24, 6, levels="two")
    case.w = np.ones_like(case.w)
    case.bits = bits.pack_bits(bits.filters_to_rows(case.w))
    case.mask = case.offset = case.slope = None
    case.activation = "none"
    case.x[0, 3, 0, 0] = np.inf
    case.x[0, 5, 5, 5] = np.nan
    y = case.run(case.layer(level), None, 1)
    assert np.isposinf(y[0, :, :2, :2]).all()
    assert np.isnan(y[0, :, 4:, 4:]).all()
    assert np.isfinite(y[0, :, 2:4, 2:4]).all()
    assert np.isfinite(y[0, :, :2, 2:]).all()
    for kind, value in (("sign", -1.0), ("int8", 0.0)):
        case.kind = kind
        got = case.run(case.layer(level), None, 1)
        x, case.x = case.x, np.nan_to_num(case.x, nan=value)
        np.testing.assert_array_equal(got, case.run(case.layer(level), None, 1))
        case.x = x


@pytest.mark.parametrize("kind", KINDS)
def test_explain_names_what_runs(kind):
    case = conv2d(64, 64, 8, kind)
    words = {"real": "floats", "sign": "signs", "int8": "int8"}
    assert words[kind] in case.layer().explain(1, [1, 8, 8])
    with_offset = conv2d(1, 24, 8, kind, groups=24, levels="offset")
    assert "map by map" in depthwise(24, 8, kind).layer().explain(1, [1, 8, 8])
    if kind == "real":
        assert "too few filters" in with_offset.layer().explain(1, [1, 8, 8])


def make(**changes):
    arguments = {"bits": np.zeros((3, 8), np.uint8), "scale": np.ones(3, F32), "channels": 5} | changes
    bits_, scale = arguments.pop("bits"), arguments.pop("scale")
    optional = [arguments.pop(name, None) for name in ("mask", "offset", "bias")]
    return _core.Convolution(bits_, optional[0], scale, *optional[1:], **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 0}, "number of channels of a group is 0"),
        ({"groups": 2}, "groups = 2 does not divide 3 filters"),
        ({"kernel": [1, 0, 1]}, "a kernel size is 0"),
        ({"stride": [0, 1, 1]}, "a stride is 0"),
        ({"pads_begin": [0, 0, -1]}, "a padding is -1"),
        ({"output_padding": [0, 0, 1]}, "an output padding is 1"),
        ({"input": "sign", "pad_value": 2}, "pad_value is 2"),
        ({"input": "int8", "input_scale": 0.0}, "scale of the input is 0"),
        ({"input": "half"}, "Allowed: real, sign, words, int8"),
        ({"activation": "gelu"}, "Allowed: none, relu, prelu, hardtanh"),
        ({"activation": "prelu"}, "a prelu needs its slopes"),
        ({"level": "sse"}, "level 'sse'"),
        ({"scale": np.ones(2, F32)}, "scale does not hold one number for each of 3 filters"),
        ({"bits": np.zeros((3, 16), np.uint8)}, "bits has shape"),
        ({"bits": np.zeros(8, np.uint8)}, "bits has 1 axes"),
        ({"channels": 2**23, "kernel": [1, 3, 1]}, "Allowed: up to 16777216"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_layers_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        make(**changes)


def test_wrong_inputs_are_refused():
    with pytest.raises(FormatError, match="row 0 has a bit set after its 5 bits"):
        make(bits=np.full((3, 8), 32, np.uint8))
    layer, x, y = make(), np.zeros((2, 5), F32), np.zeros((2, 3), F32)
    layer.run(x, None, y, 2, [1, 1, 1], 1)
    for arguments in ((x, None, y[:1], 2), (x[:1], None, y, 2), (x, y[:1], y, 2), (x, None, y, 3)):
        with pytest.raises(InputError, match="does not have the size"):
            layer.run(*arguments, [1, 1, 1], 1)
    with pytest.raises(InputError, match="threads is 0"):
        layer.run(x, None, y, 2, [1, 1, 1], 0)
    with pytest.raises(InputError, match="a size of the input is 0"):
        layer.run(x, None, y, 2, [1, 0, 1], 1)
    with pytest.raises(InputError, match="leaves no place for a kernel of 3"):
        make(kernel=[1, 3, 1]).output_size([1, 2, 1])
    with pytest.raises(InputError, match="too large"):
        layer.output_size([2**20, 2**20, 1])


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(COMPILER) is None or shutil.which(EMULATOR) is None, reason=f"needs {COMPILER} and {EMULATOR}"
)
def test_layers_at_the_neon_level_in_an_emulator(tmp_path):
    sources = [s for s in (CPP / "src").rglob("*.cpp") if "_avx" not in s.name]
    assert any("neon" in source.name for source in sources)
    flags = ("-std=c++17", "-O1", "-static", "-ffp-contract=off", "-DEQUIBIT_NEON_LEVEL", f"-I{CPP / 'include'}")
    program = tmp_path / "layers"
    files = (Path(__file__).with_name("layers_at_levels.cpp"), *sources)
    subprocess.run([COMPILER, *flags, *files, "-o", program], check=True)
    child = subprocess.run([EMULATOR, program, "300"], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stdout
    assert child.stdout.endswith(" 0 differ: neon\n")
