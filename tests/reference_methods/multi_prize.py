"""Multi-prize tickets from the formulas (arXiv 2103.09377), with loops in float64: obvious, not fast."""

from fractions import Fraction
from math import ceil, floor

import numpy as np


def lowest_first(values):
    """Positions by value, then by index; -0.0 equals 0.0."""
    return sorted(range(len(values)), key=lambda i: (float(values[i]), i))


def signs(weights, equal_bits):
    """b: the sign of each frozen weight, sign(0) = +1; with equal bits -1 for the lowest half of the filter."""
    b = np.ones(weights.shape)
    for f, filter_ in enumerate(weights.reshape(len(weights), -1)):
        row = b[f].reshape(-1)
        for rank, i in enumerate(lowest_first(filter_)):
            row[i] = -1 if (rank < len(filter_) // 2 if equal_bits != "off" else filter_[i] < 0) else 1
    return b


def masks(scores, b, density, equal_bits):
    """M of several layers at once: all their weights compete unless `equal_bits` is exact."""
    d = Fraction(str(density))
    kept = [np.zeros(s.shape) for s in scores]
    if equal_bits == "exact":
        for s, sides, m in zip(scores, b, kept, strict=True):
            for f in range(len(s)):
                magnitudes, side, row = np.abs(s[f]).reshape(-1), sides[f].reshape(-1), m[f].reshape(-1)
                order, n = lowest_first(magnitudes), len(magnitudes)
                for value, count in ((-1, floor(d * n / 2)), (1, ceil(d * n / 2))):
                    best = [i for i in order if side[i] == value]
                    row[best[len(best) - count :]] = 1
        return kept
    everything = [(layer, i) for layer, s in enumerate(scores) for i in range(s.size)]
    order = lowest_first([abs(scores[layer].reshape(-1)[i]) for layer, i in everything])
    for position in order[floor((1 - d) * len(order)) :]:
        layer, i = everything[position]
        kept[layer].reshape(-1)[i] = 1
    return kept


def layer(weights, scores, upstream, density, equal_bits="off", mask=None):
    """Binary weight, alpha, effective weight and dL/dS of one layer, given dL/dw_eff."""
    b = signs(weights, equal_bits)
    if mask is None:
        (mask,) = masks([scores], [b], density, equal_bits)
    alpha = sum(abs(w) for w, m in zip(weights.flat, mask.flat, strict=True) if m) / sum(mask.flat)
    gradient = np.array(
        [
            g * abs(w) * side * (1 if s >= 0 else -1)
            for g, w, side, s in zip(upstream.flat, weights.flat, b.flat, scores.flat, strict=True)
        ]
    ).reshape(weights.shape)
    return mask * b, alpha, alpha * mask * b, gradient
