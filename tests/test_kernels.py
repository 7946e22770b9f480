"""The C++ kernels against the definition in `equibit.bits`, and the choice of their level."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from equibit import bits, kernels
from equibit.errors import FormatError, InputError

LENGTHS = (0, 1, 7, 8, 9, 63, 64, 65, 127, 128, 129, 191, 193)
FLOATS = ("float16", "float32", "float64")
KNOWN_LEVELS = ("avx512_icl", "avx512_vnni", "avx512", "avx2", "neon", "portable")
CPUINFO = Path("/proc/cpuinfo")
PROPERTY = settings(deadline=None, max_examples=60)


def random_signs(rng, *shape):
    return rng.choice(np.array([-1, 1], np.int8), size=shape)


def run_python(code, **environment):
    """Run `code` in a fresh interpreter; the level is chosen once per process."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# Packing


@pytest.mark.parametrize("dtype", [*FLOATS, "int8"])
@pytest.mark.parametrize("n", LENGTHS)
def test_pack_bits_equals_the_definition(n, dtype):
    values = (np.random.default_rng(n).standard_normal((2, 3, n)) * 50).astype(dtype)
    packed = kernels.pack_bits(values)
    assert packed.dtype == np.uint8
    np.testing.assert_array_equal(packed, bits.pack_bits(values))


@pytest.mark.parametrize("dtype", ["int8", "float32", "float64"])
@pytest.mark.parametrize("n", LENGTHS)
def test_unpack_bits_equals_the_definition(n, dtype):
    packed = bits.pack_bits(np.random.default_rng(n).standard_normal((2, 3, n)))
    values = kernels.unpack_bits(packed, n, dtype)
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, bits.unpack_bits(packed, n, dtype))


@PROPERTY
@given(
    hnp.arrays(
        st.sampled_from(FLOATS),
        hnp.array_shapes(max_dims=3, max_side=70),
        elements={"allow_nan": False, "allow_subnormal": True},
        fill=st.nothing(),
    )
)
def test_pack_bits_of_any_float(values):
    np.testing.assert_array_equal(kernels.pack_bits(values), bits.pack_bits(values))


@pytest.mark.parametrize("dtype", FLOATS)
def test_zeros_and_denormals(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    values = np.array([0.0, -0.0, tiny, -tiny, np.inf, -np.inf], dtype)
    assert kernels.pack_bits(values).tobytes() == bytes([0b010111, *[0] * 7])


@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_is_refused_by_row(dtype):
    values = np.zeros((3, 5), dtype)
    values[2, 4] = np.nan
    with pytest.raises(InputError, match="row 2 holds a NaN"):
        kernels.pack_bits(values)


@pytest.mark.parametrize("values", [np.float32(1.0), np.array([True]), np.array([1, 2]), np.array(["a"])])
def test_what_is_not_packed_from_is_refused(values):
    with pytest.raises(InputError, match="Allowed: float16, float32, float64, int8"):
        kernels.pack_bits(values)


def test_unpack_bits_refuses():
    packed = bits.pack_bits(np.ones((3, 65)))
    with pytest.raises(InputError, match="cannot unpack to float16"):
        kernels.unpack_bits(packed, 65, np.float16)
    with pytest.raises(InputError, match="the last of 16 bytes"):
        kernels.unpack_bits(packed[:, :8], 65)
    with pytest.raises(InputError, match="-1 bits"):
        kernels.unpack_bits(packed, -1)
    with pytest.raises(InputError, match="uint8"):
        kernels.unpack_bits(packed.view(np.int8), 65)
    packed[1, 8] |= 2
    with pytest.raises(FormatError, match="row 1 has a bit set after its 65 bits"):
        kernels.unpack_bits(packed, 65)


def test_strided_unaligned_and_read_only_arrays():
    values = np.random.default_rng(0).standard_normal((5, 130))
    packed = bits.pack_bits(values)
    shifted = np.empty(packed.size + 1, np.uint8)[1:].reshape(packed.shape)
    shifted[:] = packed
    shifted.flags.writeable = False
    np.testing.assert_array_equal(kernels.unpack_bits(shifted, 130), bits.unpack_bits(packed, 130))
    np.testing.assert_array_equal(kernels.unpack_bits(packed[::2], 130), bits.unpack_bits(packed[::2], 130))
    np.testing.assert_array_equal(kernels.pack_bits(values.T), bits.pack_bits(values.T))


# Linear


@PROPERTY
@given(st.integers(0, 7), st.integers(0, 7), st.sampled_from(LENGTHS), st.integers(0, 2**32 - 1))
def test_xnor_linear_equals_the_reference(rows, filters, n, seed):
    rng = np.random.default_rng(seed)
    x, w = random_signs(rng, rows, n), random_signs(rng, filters, n)
    got = kernels.xnor_linear(bits.pack_bits(x), bits.pack_bits(w), n)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, bits.xnor_linear_reference(x, w))
    pruned = w * rng.integers(0, 2, w.shape, np.int8)
    signs, mask = bits.pack_ternary(pruned)
    np.testing.assert_array_equal(
        kernels.xnor_linear(bits.pack_bits(x), signs, n, mask), bits.xnor_linear_reference(x, pruned)
    )


def test_xnor_linear_refuses():
    x = bits.pack_bits(np.ones((3, 70)))
    with pytest.raises(InputError, match="x_bits has shape"):
        kernels.xnor_linear(x, x, 64)
    with pytest.raises(InputError, match="w_bits has shape"):
        kernels.xnor_linear(x, x[0], 70)
    with pytest.raises(InputError, match="w_mask"):
        kernels.xnor_linear(x, x, 70, x[:2])
    with pytest.raises(InputError, match="uint8"):
        kernels.xnor_linear(x.astype(np.int16), x, 70)
    with pytest.raises(FormatError, match="row 0 of w_bits has a bit set where its w_mask bit is 0"):
        kernels.xnor_linear(x, x, 70, np.zeros_like(x))
    dirty = x.copy()
    dirty[1, 15] = 128
    with pytest.raises(FormatError, match="w_bits: row 1"):
        kernels.xnor_linear(x, dirty, 70)


# Convolution

CONVOLUTIONS = [
    # batch, groups, channels a group, filters a group, input, kernel, stride, padding, dilation
    (2, 1, 3, 5, (7, 6), (3, 3), (1, 1), (1, 1), (1, 1)),
    (1, 1, 1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
    (1, 1, 64, 3, (4, 5), (3, 3), (2, 2), (1, 1), (1, 1)),
    (2, 1, 65, 2, (5, 4), (3, 2), (2, 1), (0, 2), (1, 1)),
    (1, 1, 130, 3, (5, 5), (1, 1), (2, 2), (0, 0), (1, 1)),
    (1, 2, 5, 3, (6, 7), (3, 3), (1, 2), (2, 1), (2, 2)),
    (1, 2, 64, 1, (4, 4), (2, 2), (1, 1), (1, 1), (1, 1)),
    (1, 7, 1, 1, (5, 5), (3, 3), (1, 1), (1, 1), (1, 1)),  # depthwise
    (2, 3, 1, 2, (6, 5), (3, 2), (3, 2), (1, 0), (2, 1)),  # depthwise with a multiplier
    (1, 1, 2, 2, (2, 2), (2, 2), (1, 1), (4, 4), (1, 1)),  # outputs that see padding only
    (1, 1, 33, 4, (1, 9), (1, 5), (1, 1), (0, 2), (1, 2)),  # one-dimensional
    (0, 1, 3, 2, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1)),
    (1, 1, 3, 0, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1)),
]


def check_conv2d(rng, batch, groups, channels, filters, size, kernel, stride, padding, dilation, pad_value):
    x = random_signs(rng, batch, groups * channels, *size)
    w = random_signs(rng, groups * filters, channels, *kernel)
    pruned = w * rng.integers(0, 2, w.shape, np.int8)
    x_bits = bits.pack_bits(bits.pixels_to_rows(x, groups))
    how = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "pad_value": pad_value,
    }
    for weight in (w, pruned):
        signs, mask = bits.pack_ternary(bits.filters_to_rows(weight))
        got = kernels.xnor_conv2d(
            x_bits,
            signs,
            in_channels=groups * channels,
            kernel_size=kernel,
            w_mask=mask if weight is pruned else None,
            **how,
        )
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, bits.xnor_conv_reference(x, weight, **how))


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_xnor_conv2d_equals_the_reference(case, pad_value):
    check_conv2d(np.random.default_rng(7), *case, pad_value)


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@PROPERTY
@given(
    case=st.tuples(
        st.integers(1, 2),
        st.integers(1, 3),
        st.sampled_from((1, 2, 31, 64, 65)),
        st.integers(1, 3),
        pairs(5, 7),
        pairs(1, 3),
        pairs(1, 3),
        pairs(0, 2),
        pairs(1, 2),
    ),
    pad_value=st.sampled_from((-1, 0, 1)),
    seed=st.integers(0, 2**32 - 1),
)
def test_xnor_conv2d_of_any_shape(case, pad_value, seed):
    check_conv2d(np.random.default_rng(seed), *case, pad_value)


def conv2d(x_shape=(1, 4, 5, 5), w_shape=(6, 2, 3, 3), x_groups=2, **changes):
    x_bits = bits.pack_bits(bits.pixels_to_rows(np.ones(x_shape), x_groups))
    w_bits = bits.pack_bits(bits.filters_to_rows(np.ones(w_shape)))
    return kernels.xnor_conv2d(x_bits, w_bits, **{"in_channels": 4, "kernel_size": 3, "groups": 2, **changes})


def test_xnor_conv2d_takes_one_number_for_both_axes_and_a_float_pad_value():
    assert conv2d().tolist() == np.full((1, 6, 3, 3), 18).tolist()
    np.testing.assert_array_equal(
        conv2d(stride=2, padding=1, pad_value=0.0), conv2d(stride=(2, 2), padding=(1, 1), pad_value=0)
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"in_channels": 0}, "in_channels is 0"),
        ({"in_channels": 5}, "does not divide"),
        ({"in_channels": 260}, "x_bits has shape"),
        ({"kernel_size": 9}, "w_bits has shape"),
        ({"kernel_size": (3,)}, "kernel_size is"),
        ({"kernel_size": 0}, "kernel_size is 0"),
        ({"stride": 0}, "stride is 0"),
        ({"padding": -1}, "padding is -1"),
        ({"dilation": 3}, "smaller than the kernel"),
        ({"dilation": 2**40}, "dilation is"),
        ({"groups": 0}, "groups is 0"),
        ({"pad_value": 2}, "pad_value is 2"),
        ({"pad_value": 0.5}, "pad_value is 0.5"),
        ({"x_groups": 1, "groups": 2}, "multiple of groups"),
        ({"w_shape": (5, 2, 3, 3)}, "multiple of groups"),
    ],
)
def test_xnor_conv2d_refuses(changes, match):
    with pytest.raises(InputError, match=match):
        conv2d(**changes)


def test_xnor_conv2d_refuses_a_mask_of_another_shape():
    with pytest.raises(InputError, match="must agree"):
        conv2d(w_mask=np.zeros((1, 8), np.uint8))


# Levels


def test_levels_are_known_and_end_with_portable():
    available = kernels.available()
    assert available == tuple(level for level in KNOWN_LEVELS if level in available)
    assert available[-1] == "portable"
    assert kernels.cpu_name()


NEEDS = {
    "avx2": {"avx2", "fma", "popcnt"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx512_vnni": {"avx512_vnni"},
    "avx512_icl": {"avx512_vpopcntdq", "avx512vbmi", "avx512_bitalg"},
}


@pytest.mark.skipif(platform.machine() != "x86_64" or not CPUINFO.is_file(), reason="reads the flags of an x86 CPU")
def test_available_levels_are_those_that_the_cpu_has_the_flags_of():
    line = next(line for line in CPUINFO.read_text().splitlines() if line.startswith("flags"))
    flags, wanted = set(line.split()), {"portable"}
    for level, needed in NEEDS.items():  # each needs what those before it do
        if not needed <= flags:
            break
        wanted.add(level)
    assert set(kernels.available()) == wanted


SHOW_ACTIVE = "from equibit import kernels; print(kernels.active())"


@pytest.mark.parametrize("level", kernels.available())
def test_a_forced_level_is_the_active_one(level):
    assert run_python(SHOW_ACTIVE, EQUIBIT_KERNEL=level).stdout.split() == [level]


def test_the_best_level_is_the_active_one():
    assert run_python(SHOW_ACTIVE, EQUIBIT_KERNEL="").stdout.split() == [kernels.available()[0]]


def show_refusal(level):
    code = (
        "import numpy as np\nfrom equibit import kernels\nfrom equibit.errors import InputError\n"
        "for use in (kernels.active, lambda: kernels.pack_bits(np.ones(3))):\n"
        "    try:\n        use()\n    except InputError as error:\n        print(error)\n"
    )
    return run_python(code, EQUIBIT_KERNEL=level).stdout.splitlines()


def test_an_unknown_level_is_refused():
    message = f"EQUIBIT_KERNEL=sse9 is not a kernel level. Available here: {' '.join(kernels.available())}."
    assert show_refusal("sse9") == [message, message]


def test_a_level_that_is_not_available_is_refused():
    level = "avx2" if "neon" in kernels.available() else "neon"
    available = " ".join(kernels.available())
    problem = f"EQUIBIT_KERNEL={level} is a kernel level that this CPU or this build lacks"
    message = f"{problem}. Available here: {available}."
    assert show_refusal(level) == [message, message]


def test_bits_and_kernels_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\nimport equibit.bits, equibit.kernels; print(equibit.kernels.active())"
    )
    done = run_python(code, EQUIBIT_KERNEL="portable")
    assert (done.returncode, done.stdout.split()) == (0, ["portable"]), done.stderr
