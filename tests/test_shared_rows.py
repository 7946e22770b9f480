"""Convolutions whose rows of taps share a panel and its tables, against torch in float64."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from equibit import bits, kernels
from equibit.kernels import _core

LEVELS = kernels.available()

# channels and filters of a group, groups, input, kernel, dilation, pads before and after down and across, stride across
CASES = [
    (8, 12, 1, (9, 7), (3, 3), (1, 1), (1, 1, 1, 1), 1),
    (16, 24, 1, (16, 32), (3, 3), (1, 1), (1, 1, 1, 1), 1),
    (16, 33, 1, (12, 20), (3, 3), (2, 1), (4, 0, 2, 1), 1),
    (8, 10, 2, (1, 40), (2, 3), (1, 2), (1, 1, 0, 3), 2),
    (24, 17, 1, (40, 5), (5, 1), (1, 1), (2, 2, 0, 0), 1),
    (40, 50, 1, (7, 7), (3, 2), (1, 1), (0, 2, 1, 0), 1),
    (8, 11, 1, (3, 3), (3, 3), (1, 1), (0, 0, 0, 0), 1),
]
NOT_SHARED = [
    (8, 12, 1, (9, 7), (3, 3), (1, 1), (3, 1, 1, 1), 1),  # output rows of padding only
    (3, 12, 1, (9, 7), (3, 3), (1, 1), (1, 1, 1, 1), 1),  # a row of taps ends within a byte
    (8, 4, 1, (9, 7), (3, 3), (1, 1), (1, 1, 1, 1), 1),  # few filters
]


def make_layer(rng, case, level, kind, three_levels):
    channels, filters, groups, _, kernel, dilation, pads, across = case
    weights = rng.choice([-1.0, 1.0], (filters * groups, channels, *kernel))
    if three_levels:
        weights *= rng.integers(0, 2, weights.shape)
    signs, mask = bits.pack_ternary(bits.filters_to_rows(weights))
    scale, bias = rng.uniform(0.1, 2, (2, filters * groups)).astype(np.float32)
    layer = _core.Convolution(
        signs,
        mask if three_levels else None,
        scale,
        None,
        bias,
        kernel=(1, *kernel),
        stride=(1, 1, across),
        dilation=(1, *dilation),
        pads_begin=(0, pads[0], pads[2]),
        pads_end=(0, pads[1], pads[3]),
        channels=channels,
        groups=groups,
        input=kind,
        input_scale=0.25,
        activation="relu",
        level=level,
    )
    return layer, weights * scale[:, None, None, None], bias


def expected_of(case, x, weights, bias, residual):
    _, _, groups, _, _, dilation, pads, across = case
    padded = functional.pad(torch.from_numpy(x).double(), (pads[2], pads[3], pads[0], pads[1]))
    y = functional.conv2d(
        padded, torch.from_numpy(weights), torch.from_numpy(bias).double(), (1, across), 0, dilation, groups
    )
    return (y + torch.from_numpy(residual)).clamp(min=0).numpy() if residual is not None else y.clamp(min=0).numpy()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("level", LEVELS)
def test_equals_the_convolution(level, case):
    rng = np.random.default_rng(1)
    channels, _, groups, size = case[:4]
    for kind, three_levels, (batch, threads) in itertools.product(
        ("real", "int8"), (False, True), ((1, 1), (1, 5), (2, 2))
    ):
        layer, weights, bias = make_layer(rng, case, level, kind, three_levels)
        x = rng.integers(-40, 41, (batch, channels * groups, *size)).astype(np.float32) / 4  # whole steps of int8
        expected = expected_of(case, x, weights, bias, None)
        residual = rng.standard_normal(expected.shape).astype(np.float32) if batch == 1 else None
        expected = expected_of(case, x, weights, bias, residual)
        y = np.full(expected.shape, np.nan, np.float32)
        layer.run(x, residual, y, batch, (1, *size), threads)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-4)


def test_which_layers_share():
    rng = np.random.default_rng(2)
    for kind in ("real", "int8"):
        for case in CASES:
            layer, *_ = make_layer(rng, case, "portable", kind, three_levels=False)
            assert "shared by the rows" in layer.explain(1, (1, *case[3])), case
    for case in NOT_SHARED:
        layer, *_ = make_layer(rng, case, "portable", "real", three_levels=False)
        assert "shared by the rows" not in layer.explain(1, (1, *case[3])), case


@pytest.mark.parametrize("level", LEVELS)
def test_threads_do_not_change_the_sums(level):
    """Bands of rows overlap; what they share is computed twice, in the same order."""
    rng = np.random.default_rng(3)
    layer, *_ = make_layer(rng, CASES[1], level, "real", three_levels=False)
    x = rng.standard_normal((1, 16, 16, 32)).astype(np.float32)
    results = []
    for threads in (1, 2, 3):
        y = np.empty((1, 24, 16, 32), np.float32)
        layer.run(x, None, y, 1, (1, 16, 32), threads)
        results.append(y)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
