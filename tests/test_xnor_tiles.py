"""The kernels over words of signs, at every level this CPU has, against numpy."""

import numpy as np
import pytest
from tile_levels import LEVELS, tiles

from equibit.errors import InputError
from equibit.kernels import _core

# Words of a filter: those of 3x3 layers (9, 18, 36, 72), every remainder of a chunk of four, and sizes around those at
# which the counters of bytes are emptied.
WORDS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 18, 36, 53, 72, 107, 108, 109, 110, 111, 112, 113, 124, 215, 216, 217, 250, 503)
LANES = (8, 16, 24, 32)
ONES = np.uint64(2**64 - 1)


def count_bits(words):
    """Set bits along the last axis."""
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1).sum(axis=-1, dtype=np.int32)


def unequal_bits(panel, weights):
    return np.stack([count_bits(panel.T ^ row) for row in weights])


def random_words(rng, *shape):
    return rng.integers(0, 2**64, shape, dtype=np.uint64)


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("level", LEVELS)
def test_tiles_count_the_bits_that_differ(level, words):
    rng = np.random.default_rng(words)
    for lanes in LANES:
        panel = random_words(rng, words, lanes)
        for filters in (1, 4, 6):
            weights = random_words(rng, filters, words)
            got = tiles(level).xnor_tile(panel, weights)
            assert got.dtype == np.int32
            np.testing.assert_array_equal(got, unequal_bits(panel, weights))


def hostile_panels(words):
    """Panels that differ from zeros everywhere, nowhere, in every other word, in two of four, and in a single bit."""
    index = np.arange(words)[:, None]
    for marked in (index >= 0, index < 0, index % 2 == 0, index % 2 == 1, index % 4 < 2, index % 4 >= 2):
        yield np.repeat(np.where(marked, ONES, np.uint64(0)), 8, axis=1)
    yield np.repeat(np.where(index == words // 2, np.uint64(1) << np.uint64(63), np.uint64(0)), 8, axis=1)


@pytest.mark.parametrize("words", [1, 9, 72, 113, 250, 503])
@pytest.mark.parametrize("level", LEVELS)
def test_tiles_of_hostile_words(level, words):
    weights = np.zeros((5, words), np.uint64)
    weights[1] = ONES
    weights[2] = 0x5555555555555555
    weights[3, ::2] = ONES
    for panel in hostile_panels(words):
        np.testing.assert_array_equal(tiles(level).xnor_tile(panel, weights), unequal_bits(panel, weights))


@pytest.mark.parametrize("level", LEVELS)
def test_a_filter_without_words_differs_nowhere(level):
    got = tiles(level).xnor_tile(np.zeros((0, 16), np.uint64), np.zeros((3, 0), np.uint64))
    assert got.tolist() == np.zeros((3, 16)).tolist()


@pytest.mark.parametrize("words", [0, *WORDS, 1024, 1031])
@pytest.mark.parametrize("level", LEVELS)
def test_rows_count_the_bits_that_differ(level, words):
    rng = np.random.default_rng(words)
    x, weights = random_words(rng, words), random_words(rng, 7, words)
    weights[1], weights[2] = x, ~x
    got = tiles(level).gemv_xnor(x, weights)
    np.testing.assert_array_equal(got, count_bits(weights ^ x))
    assert got[1:3].tolist() == [0, 64 * words]


def signs_with_specials(rng, *shape):
    """Floats among which are those whose sign is a matter of definition."""
    tiny = np.finfo(np.float32).smallest_subnormal
    specials = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, tiny, -tiny], np.float32)
    x = rng.standard_normal(shape).astype(np.float32)
    return np.where(rng.random(shape) < 0.3, rng.choice(specials, shape), x)


def packed_rows(x):
    """[rows, words]: bit i % 64 of word i / 64 is x[row, i] >= 0."""
    marked = np.packbits(x >= 0, axis=1, bitorder="little")
    words = -(-x.shape[1] // 64)
    padded = np.pad(marked, ((0, 0), (0, 8 * words - marked.shape[1])))
    return np.ascontiguousarray(padded).view(np.uint64)


@pytest.mark.parametrize("channels", [1, 2, 31, 32, 33, 63, 64, 65, 96, 130])
@pytest.mark.parametrize("level", LEVELS)
def test_planes_of_signs(level, channels):
    rng = np.random.default_rng(channels)
    for places in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 49, 64, 196):
        x = signs_with_specials(rng, channels, places)
        got = tiles(level).pack_planes(x)
        assert got.dtype == np.uint64
        np.testing.assert_array_equal(got, packed_rows(x.T).T)


@pytest.mark.parametrize("places", [1023, 1024, 1025, 1041, 3136])
@pytest.mark.parametrize("level", LEVELS)
def test_planes_of_large_maps(level, places):
    x = signs_with_specials(np.random.default_rng(places), 70, places)
    np.testing.assert_array_equal(tiles(level).pack_planes(x), packed_rows(x.T).T)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 15, 16, 17, 63, 64, 65, 70, 127, 128, 200, 1000])
@pytest.mark.parametrize("level", LEVELS)
def test_rows_of_signs(level, n):
    x = signs_with_specials(np.random.default_rng(n), 3, n)
    np.testing.assert_array_equal(tiles(level).pack_rows(x), packed_rows(x))


def test_what_is_no_tile_is_refused():
    panel, weights = np.zeros((3, 8), np.uint64), np.zeros((4, 3), np.uint64)
    with pytest.raises(InputError, match="not a kernel level"):
        _core.xnor_tile("sse9", panel, weights)
    with pytest.raises(InputError, match="8, 16, 24 or 32 lanes"):
        _core.xnor_tile("portable", np.zeros((3, 12), np.uint64), weights)
    with pytest.raises(InputError, match=r"panel \(words, lanes\)"):
        _core.xnor_tile("portable", panel, weights[:, :2])
    with pytest.raises(InputError, match=r"x \(words,\)"):
        _core.gemv_xnor("portable", panel[0], weights)
