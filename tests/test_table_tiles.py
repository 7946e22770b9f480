"""The table, vnni and gemv kernels, at every level this CPU has, against sums in float64 and int64."""

import numpy as np
import pytest
import torch
from tile_levels import LEVELS, tiles

from equibit import kernels
from equibit.errors import InputError
from equibit.kernels import _core

NATIVE = kernels.available()
EPS = np.finfo(np.float32).eps
INTEGER_KERNELS = ("table_tile_i8", "vnni_tile")

# filters, bytes of a filter, lanes: one byte, one block of 12 bytes and its neighbours, filters beside blocks of 8
SIZES = [
    (1, 1, 16),
    (1, 1, 32),
    (2, 11, 16),
    (7, 12, 32),
    (8, 13, 16),
    (9, 24, 32),
    (17, 25, 32),
    (64, 72, 16),
    (3, 200, 32),
]


def random_weights(rng, filters, n_bytes):
    return rng.integers(0, 256, (filters, n_bytes), dtype=np.uint8)


def signs_of(weights):
    """[filters, k] in -1, +1, the least significant bit of a byte first."""
    return 2.0 * np.unpackbits(weights, axis=1, bitorder="little") - 1


def lanes_of(x):
    """The same values in each of 16 lanes."""
    return np.repeat(x[:, None], 16, axis=1)


def quads_of(panel):
    """[k, lanes] as [k / 4, lanes, 4]."""
    return np.ascontiguousarray(panel.reshape(-1, 4, panel.shape[1]).transpose(0, 2, 1))


def integer_kernel(level, name):
    if name == "vnni_tile" and level not in NATIVE:
        pytest.skip("the plain loops of the build for NEON, which has no such instruction")
    return getattr(tiles(level), name)


def assert_close_to_float64(got, x, signs):
    """4 eps sqrt(K) times the size of the result where signs are random, which is |x| = sqrt(sum of x^2)."""
    exact = signs @ x.astype(np.float64)
    size = np.sqrt((x.astype(np.float64) ** 2).sum(axis=0))
    assert (np.abs(got - exact) <= 4 * EPS * np.sqrt(len(x)) * size).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", LEVELS)
def test_float_sums(level, size):
    filters, n_bytes, lanes = size
    rng = np.random.default_rng(n_bytes)
    panel = rng.standard_normal((8 * n_bytes, lanes)).astype(np.float32)
    weights = random_weights(rng, filters, n_bytes)
    got = tiles(level).table_tile_f32(panel, weights)
    assert got.shape == (filters, lanes)
    assert_close_to_float64(got, panel, signs_of(weights))


@pytest.mark.parametrize("size", [(1, 9, 16), (3, 1, 32), (4, 27, 16), (9, 100, 32)])
@pytest.mark.parametrize("level", NATIVE)
def test_dense_sums(level, size):
    filters, k, lanes = size
    rng = np.random.default_rng(k)
    panel = rng.standard_normal((k, lanes)).astype(np.float32)
    signs = rng.choice(np.array([-1, 1], np.float32), (filters, k))
    assert_close_to_float64(_core.dense_tile_f32(level, panel, signs), panel, signs.astype(np.float64))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kernel", INTEGER_KERNELS)
@pytest.mark.parametrize("size", SIZES)
def test_integer_sums_are_exact(level, size, kernel):
    filters, n_bytes, lanes = size
    rng = np.random.default_rng(n_bytes)
    panel = rng.integers(-128, 128, (8 * n_bytes, lanes), dtype=np.int8)
    weights = random_weights(rng, filters, n_bytes)
    got = integer_kernel(level, kernel)(quads_of(panel), weights)
    np.testing.assert_array_equal(got, signs_of(weights) @ panel.astype(np.float64))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kernel", INTEGER_KERNELS)
def test_extreme_integers_do_not_overflow(level, kernel):
    for value in (-128, 127):
        panel = np.full((8 * 700, 32), value, np.int8)
        for byte in (0, 255):
            weights = np.full((9, 700), byte, np.uint8)
            got = integer_kernel(level, kernel)(quads_of(panel), weights)
            assert (got == (value if byte else -value) * 5600).all()


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1, 16), (9, 13, 32), (16, 24, 32), (64, 24, 16)])
@pytest.mark.parametrize("level", NATIVE)
def test_rows_of_taps_share_a_panel(level, size, rows):
    filters, n_bytes, lanes = size
    rng = np.random.default_rng(rows)
    weights = random_weights(rng, filters, rows * n_bytes)
    by_row = weights.reshape(filters, rows, n_bytes)
    panel = rng.standard_normal((8 * n_bytes, lanes)).astype(np.float32)
    got = _core.table_rows_f32(level, panel, weights, rows)
    expected = [tiles(level).table_tile_f32(panel, np.ascontiguousarray(by_row[:, row])) for row in range(rows)]
    np.testing.assert_allclose(got, np.stack(expected, axis=1), rtol=1e-5, atol=1e-5)  # the order of sums may differ
    panel = rng.integers(-128, 128, panel.shape, dtype=np.int8)
    got = _core.table_rows_i8(level, quads_of(panel), weights, rows)
    expected = [signs_of(np.ascontiguousarray(by_row[:, row])) @ panel.astype(np.float64) for row in range(rows)]
    np.testing.assert_array_equal(got, np.stack(expected, axis=1))


GEMV_SIZES = [(1, 1), (10, 3), (31, 4), (32, 64), (33, 65), (97, 2), (130, 41), (5, 2051)]


@pytest.mark.parametrize("size", GEMV_SIZES)
@pytest.mark.parametrize("level", LEVELS)
def test_single_rows(level, size):
    rng = np.random.default_rng(size[1])
    weights = random_weights(rng, *size)
    signs = signs_of(weights)
    x = rng.standard_normal(8 * size[1]).astype(np.float32)
    assert_close_to_float64(tiles(level).gemv_f32(x, weights), x, signs)
    x = rng.integers(-128, 128, 8 * size[1], dtype=np.int8)
    np.testing.assert_array_equal(tiles(level).gemv_i8(x, weights), signs @ x.astype(np.float64))


@pytest.mark.parametrize("level", LEVELS)
def test_single_rows_of_extreme_integers(level):
    weights = np.full((33, 20000), 255, np.uint8)  # sums above 2^24, which float32 does not hold
    got = tiles(level).gemv_i8(np.full(160000, -127, np.int8), weights)
    assert (got == -127 * 160000).all()


def relative_error(sums, exact):
    return np.sqrt(np.mean((sums - exact) ** 2) / np.mean(exact**2))


@pytest.mark.parametrize("k", [576, 1152, 4608])
@pytest.mark.parametrize("level", [level for level in LEVELS if level != "portable"])  # which adds one by one
def test_not_less_accurate_than_the_float_library(level, k):
    rng = np.random.default_rng(k)
    panel = rng.standard_normal((k, 32)).astype(np.float32)
    weights = random_weights(rng, 64, k // 8)
    signs = signs_of(weights)
    exact = signs @ panel.astype(np.float64)
    library = relative_error((torch.from_numpy(signs).float() @ torch.from_numpy(panel)).numpy(), exact)
    assert relative_error(tiles(level).table_tile_f32(panel, weights), exact) <= library
    rows = [tiles(level).gemv_f32(np.ascontiguousarray(x), weights) for x in panel.T]
    assert relative_error(np.stack(rows, axis=1), exact) <= library


def hostile_values():
    """What float32 holds besides ordinary numbers: infinities, NaN, denormals, the largest, both zeros."""
    return np.array([np.inf, -np.inf, np.nan, 1e-45, -1e-40, 1e37, -1e37, 0.0, -0.0, 1.0], np.float32)


@pytest.mark.parametrize("level", LEVELS)
def test_hostile_values_stay_in_their_lane(level):
    values = hostile_values()
    rng = np.random.default_rng(5)
    panel = rng.standard_normal((104, 16)).astype(np.float32)
    clean = tiles(level).table_tile_f32(panel, weights := random_weights(rng, 11, 13))
    for row in (0, 3, 50, 103):
        hostile = panel.copy()
        hostile[row, 5 : 5 + len(values)] = values
        with np.errstate(invalid="ignore", over="ignore"):
            got = tiles(level).table_tile_f32(hostile, weights)
            expected = signs_of(weights) @ hostile.astype(np.float64)
        np.testing.assert_array_equal(got[:, [*range(5), 15]], clean[:, [*range(5), 15]])
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
        np.testing.assert_array_equal(got[np.isinf(expected)], expected[np.isinf(expected)])
        finite = np.isfinite(expected)
        np.testing.assert_allclose(got[finite], expected[finite], rtol=1e-4, atol=1e-4)
        for lane in range(5, 15):
            with np.errstate(invalid="ignore", over="ignore"):
                row_sums = tiles(level).gemv_f32(np.ascontiguousarray(hostile[:, lane]), weights)
            np.testing.assert_array_equal(np.isnan(row_sums), np.isnan(expected[:, lane]))


@pytest.mark.parametrize("level", LEVELS)
def test_denormals_are_kept(level):
    weights = np.array([[0b01010101], [0b00001111], [0b11111111]], np.uint8)
    x = np.full(8, np.finfo(np.float32).smallest_subnormal)
    expected = np.array([0, 0, 8 * x[0]], np.float32)
    np.testing.assert_array_equal(tiles(level).table_tile_f32(lanes_of(x), weights), lanes_of(expected))
    np.testing.assert_array_equal(tiles(level).gemv_f32(x, weights), expected)


@pytest.mark.parametrize("level", LEVELS)
def test_what_cancels_leaves_no_more_than_rounding(level):
    x = np.concatenate([np.full(400, 1e30), np.ones(400)]).astype(np.float32)
    weights = np.packbits(np.arange(800) % 2 == 0).reshape(1, -1)  # as many +1 as -1 in either half
    for sums in (tiles(level).table_tile_f32(lanes_of(x), weights), tiles(level).gemv_f32(x, weights)):
        assert (np.abs(sums) <= 4 * EPS * 1e30 * 400).all()


@pytest.mark.parametrize("level", LEVELS)
def test_same_numbers_every_time(level):
    rng = np.random.default_rng(8)
    panel = rng.standard_normal((256, 32)).astype(np.float32)
    weights = random_weights(rng, 20, 32)
    first = tiles(level).table_tile_f32(panel, weights)
    for _ in range(3):
        np.testing.assert_array_equal(tiles(level).table_tile_f32(panel, weights), first)
    half = tiles(level).table_tile_f32(np.ascontiguousarray(panel[:, :16]), weights)
    np.testing.assert_array_equal(half, first[:, :16])


def test_sizes_are_checked():
    panel = np.zeros((8, 16), np.float32)
    with pytest.raises(InputError, match="weights"):
        _core.table_tile_f32("portable", panel, np.zeros((1, 2), np.uint8))
    with pytest.raises(InputError, match="lanes"):
        _core.table_tile_f32("portable", panel[:, :8].copy(), np.zeros((1, 1), np.uint8))
    with pytest.raises(InputError, match="fastest"):
        _core.table_tile_f32("fastest", panel, np.zeros((1, 1), np.uint8))
