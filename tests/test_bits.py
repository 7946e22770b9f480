"""The definition of bits: golden bytes, every length around a word's border, and what must be refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from equibit import bits
from equibit.errors import FormatError, InputError

LENGTHS = (0, 1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 71, 127, 128, 129, 191, 192, 193)
DTYPES = ("float16", "float32", "float64", "int8")
ROWS_OF_SIGNS = st.sampled_from(LENGTHS).flatmap(lambda n: rows_of((-1, 1), n))
PROPERTY = settings(deadline=None, max_examples=60)


def rows_of(values, n, rows=3):
    return hnp.arrays(np.int8, (rows, n), elements=st.sampled_from(values))


def random_signs(rng, *shape):
    return rng.choice(np.array([-1, 1], np.int8), size=shape)


def oracle(values):
    """The contract's words: numpy.packbits, padded with zero bytes to whole words."""
    packed = np.packbits(values >= 0, axis=-1, bitorder="little")
    width = -(-values.shape[-1] // 64) * 8
    return np.pad(packed, [(0, 0)] * (values.ndim - 1) + [(0, width - packed.shape[-1])])


# Golden bytes


def test_golden_row_of_nine():
    packed = bits.pack_bits([1, -1, -1, 1, 1, 1, -1, 1, 1])
    assert packed.dtype == np.uint8
    assert packed.tobytes() == bytes([0b10111001, 0b00000001, 0, 0, 0, 0, 0, 0])


def test_golden_row_of_sixty_five():
    values = -np.ones(65)
    values[[0, 63, 64]] = 1
    assert bits.pack_bits(values).tobytes() == bytes.fromhex("0100000000000080 0100000000000000")


def test_golden_signs_of_zero_and_denormals():
    tiny = 5e-324
    assert bits.pack_bits([0.0, -0.0, tiny, -tiny, np.inf, -np.inf]).tobytes() == bytes([0b010111, *[0] * 7])


def test_golden_ternary():
    signs, mask = bits.pack_ternary([[1, 0, -1, 1], [0, 0, 0, 0]])
    assert signs.tobytes() == bytes([0b1001, *[0] * 15])
    assert mask.tobytes() == bytes([0b1101, *[0] * 15])


def test_golden_filter_order():
    weight = np.array([[[[10, 11, 12]], [[20, 21, 22]]]])  # (M, Cin, KH, KW) = (1, 2, 1, 3)
    assert bits.filters_to_rows(weight).tolist() == [[10, 20, 11, 21, 12, 22]]
    weight = np.arange(8).reshape(1, 2, 2, 2)
    assert bits.filters_to_rows(weight).tolist() == [[0, 4, 1, 5, 2, 6, 3, 7]]


def test_golden_pixel_order():
    x = np.arange(8).reshape(1, 4, 1, 2)  # channels of pixel 0: 0 2 4 6
    assert bits.pixels_to_rows(x, groups=2).tolist() == [[[[[0, 2], [4, 6]], [[1, 3], [5, 7]]]]]


# Sizes


@pytest.mark.parametrize(("n", "count"), [(0, 0), (1, 1), (63, 1), (64, 1), (65, 2), (128, 2), (129, 3)])
def test_words_and_row_bytes(n, count):
    assert (bits.words(n), bits.row_bytes(n)) == (count, 8 * count)


def test_negative_size_is_refused():
    with pytest.raises(InputError, match="-1 bits"):
        bits.words(-1)


# Packing


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", LENGTHS)
def test_pack_equals_the_oracle_and_unpacks(n, dtype):
    values = (np.random.default_rng(n).standard_normal((2, 3, n)) * 50).astype(dtype)
    packed = bits.pack_bits(values)
    assert packed.shape == (2, 3, bits.row_bytes(n))
    np.testing.assert_array_equal(packed, oracle(values))
    signs = bits.unpack_bits(packed, n, dtype)
    assert signs.dtype == dtype
    np.testing.assert_array_equal(signs, np.where(values >= 0, 1, -1))


@PROPERTY
@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        hnp.array_shapes(max_dims=3, max_side=70),
        elements={"allow_nan": False, "allow_subnormal": True},
        fill=st.nothing(),
    )
)
def test_any_float_equals_the_oracle(values):
    np.testing.assert_array_equal(bits.pack_bits(values), oracle(values))


@PROPERTY
@given(ROWS_OF_SIGNS)
def test_unpack_inverts_pack(signs):
    np.testing.assert_array_equal(bits.unpack_bits(bits.pack_bits(signs), signs.shape[-1]), signs)


def test_no_rows():
    assert bits.pack_bits(np.zeros((0, 65))).shape == (0, 16)
    assert bits.unpack_bits(np.zeros((0, 16), np.uint8), 65).shape == (0, 65)


def test_strided_input_is_packed():
    values = np.random.default_rng(0).standard_normal((65, 4)).T
    np.testing.assert_array_equal(bits.pack_bits(values), oracle(values))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_nan_is_refused_by_row(dtype):
    values = np.zeros((2, 3, 5), dtype)
    values[1, 2, 4] = np.nan
    with pytest.raises(InputError, match=r"row \(1, 2\) holds a NaN"):
        bits.pack_bits(values)


@pytest.mark.parametrize("values", [np.float64(1.0), np.array([True]), np.array([1j]), np.array(["a"])])
def test_what_has_no_signs_is_refused(values):
    with pytest.raises(InputError, match="cannot pack"):
        bits.pack_bits(values)


@pytest.mark.parametrize("n", [1, 9, 63, 65])
def test_a_set_padding_bit_is_refused_by_row(n):
    packed = bits.pack_bits(np.ones((3, n)))
    packed[2, n // 8] |= 1 << n % 8
    with pytest.raises(FormatError, match="row 2 has a bit set after"):
        bits.unpack_bits(packed, n)


@pytest.mark.parametrize(
    ("packed", "match"),
    [
        (np.zeros((2, 8), np.int8), "needed: a uint8 array"),
        ([[0] * 8], "is list"),
        (np.uint8(0), "needed: a uint8 array"),
        (np.zeros((2, 7), np.uint8), "whole words"),
        (np.zeros((2, 8), np.uint8), "row_bytes.65. = 16"),
    ],
)
def test_what_is_not_packed_is_refused(packed, match):
    with pytest.raises(InputError, match=match):
        bits.unpack_bits(packed, 65)


def test_unpacking_to_a_type_without_minus_one_is_refused():
    with pytest.raises(InputError, match="cannot unpack to uint8"):
        bits.unpack_bits(np.zeros((1, 8), np.uint8), 3, np.uint8)


# Ternary


@PROPERTY
@given(st.sampled_from(LENGTHS).flatmap(lambda n: rows_of((-1, 0, 1), n)))
def test_ternary_round_trip(values):
    signs, mask = bits.pack_ternary(values)
    assert not (signs & ~mask).any()
    np.testing.assert_array_equal(bits.unpack_ternary(signs, mask, values.shape[-1]), values)


@pytest.mark.parametrize("value", [2, -2, 0.5, np.nan])
def test_other_ternary_values_are_refused(value):
    with pytest.raises(InputError, match="row 1 holds"):
        bits.pack_ternary(np.array([[0.0, 1.0], [-1.0, value]]))


def test_ternary_planes_must_agree():
    signs, mask = bits.pack_ternary(np.array([[1, -1], [0, 1]]))
    with pytest.raises(InputError, match="must agree"):
        bits.unpack_ternary(signs, mask[:1], 2)
    signs[1, 0] |= 1
    with pytest.raises(FormatError, match="row 1 has a sign bit set"):
        bits.unpack_ternary(signs, mask, 2)
    mask[0, 3] = 1
    with pytest.raises(FormatError, match="mask: row 0"):
        bits.unpack_ternary(signs, mask, 2)


# Layout


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 3, 4), (0, 3, 2, 2), (2, 0)])
def test_rows_of_filters_round_trip(shape):
    weight = np.arange(np.prod(shape)).reshape(shape)
    rows = bits.filters_to_rows(weight)
    assert rows.shape == (shape[0], np.prod(shape[1:]))
    np.testing.assert_array_equal(bits.rows_to_filters(rows, shape), weight)


def test_layouts_that_do_not_fit_are_refused():
    with pytest.raises(InputError):
        bits.filters_to_rows(np.zeros(3))
    with pytest.raises(InputError):
        bits.rows_to_filters(np.zeros((2, 5)), (2, 3, 2))
    with pytest.raises(InputError):
        bits.pixels_to_rows(np.zeros((1, 3, 2, 2)), groups=2)
    with pytest.raises(InputError):
        bits.pixels_to_rows(np.zeros(3))


# Dot products


@PROPERTY
@given(st.sampled_from(LENGTHS), st.integers(0, 2**32 - 1))
def test_dot_products_are_exact(n, seed):
    rng = np.random.default_rng(seed)
    a, b = random_signs(rng, 3, 1, n), random_signs(rng, 4, n)
    c = rng.integers(-1, 2, (4, n))
    got = bits.xnor_dot(bits.pack_bits(a), bits.pack_bits(b), n)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, (a.astype(int) * b).sum(axis=-1))
    np.testing.assert_array_equal(
        bits.masked_xnor_dot(bits.pack_bits(a), *bits.pack_ternary(c)), (a.astype(int) * c).sum(axis=-1)
    )


def test_dot_operands_that_do_not_fit_are_refused():
    row = np.zeros((2, 8), np.uint8)
    with pytest.raises(InputError, match="row_bytes"):
        bits.xnor_dot(row, row, 65)
    with pytest.raises(InputError, match="different lengths"):
        bits.xnor_dot(row, np.zeros((2, 16), np.uint8), 64)
    with pytest.raises(InputError, match="broadcast"):
        bits.masked_xnor_dot(row, row, np.zeros((3, 8), np.uint8))


# The slow references, by hand


def test_linear_reference_by_hand():
    x = np.array([[1, 1, -1], [-1, -1, -1]], np.int8)
    w = np.array([[1, -1, -1], [0, 0, 1]], np.int8)
    got = bits.xnor_linear_reference(x, w)
    assert got.dtype == np.int32
    assert got.tolist() == [[1, -1], [1, -1]]


@pytest.mark.parametrize(("pad_value", "ends"), [(-1, (0, 0)), (0, (1, 1)), (1, (2, 2))])
def test_conv1d_reference_by_hand(pad_value, ends):
    x = np.array([[[1, 1, 1]]], np.int8)
    w = np.array([[[1, 0, 1]]], np.int8)
    got = bits.xnor_conv_reference(x, w, padding=1, pad_value=pad_value)
    assert got.tolist() == [[[ends[0], 2, ends[1]]]]


def test_conv_reference_strides_dilates_and_groups():
    x = np.array([[[1, -1, 1, 1, -1], [-1, -1, -1, 1, 1]]], np.int8)
    w = np.array([[[1, 1]], [[1, -1]]], np.int8)
    got = bits.xnor_conv_reference(x, w, stride=2, dilation=2, groups=2)
    assert got.tolist() == [[[2, 0], [0, -2]]]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_conv_reference_counts_taps_in_every_dimension(axes):
    x, w = np.ones((1, 2, *[3] * axes), np.int8), np.ones((1, 2, *[3] * axes), np.int8)
    assert bits.xnor_conv_reference(x, w).tolist() == np.full((1, 1, *[1] * axes), 2 * 3**axes).tolist()


@pytest.mark.parametrize(
    "arguments",
    [
        {"groups": 2},
        {"pad_value": 2},
        {"stride": 0},
        {"padding": -1},
        {"dilation": (1, 1)},
        {"dilation": 3},
    ],
)
def test_conv_reference_refuses(arguments):
    x, w = np.ones((1, 3, 5), np.int8), np.ones((2, 3, 3), np.int8)
    with pytest.raises(InputError):
        bits.xnor_conv_reference(x, w, **arguments)


def test_references_refuse_other_values():
    x, w = np.ones((1, 3), np.int8), np.ones((2, 3), np.int8)
    for arguments in [(0 * x, w), (x, 2 * w), (x, w[:, :2])]:
        with pytest.raises(InputError):
            bits.xnor_linear_reference(*arguments)
