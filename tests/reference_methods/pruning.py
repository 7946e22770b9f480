"""The five modes of sign and bi-half with pruning (Equal Bits, arXiv 2112.03406), with loops in float64."""

from fractions import Fraction
from math import ceil, floor

import numpy as np


def lowest_first(values):
    """Positions by value, then by index; -0.0 equals 0.0."""
    return sorted(range(len(values)), key=lambda i: (float(values[i]), i))


def sign(weights, density):
    """sign(0) = +1; 0 where |w| is among the lowest floor((1 - density) N) of the layer."""
    b = np.array([1.0 if w >= 0 else -1.0 for w in weights.flat])
    count = floor((1 - Fraction(str(density))) * len(b))
    for i in lowest_first(np.abs(weights).reshape(-1))[:count]:
        b[i] = 0
    return b.reshape(weights.shape)


def bi_half(weights, density):
    """Per filter -1 at the floor(density n / 2) lowest weights, +1 at the ceil(density n / 2) highest, else 0."""
    b, half = np.zeros(weights.shape), Fraction(str(density)) / 2
    for values, row in zip(weights.reshape(len(b), -1), b.reshape(len(b), -1), strict=True):
        order, n = lowest_first(values), len(values)
        row[order[: floor(half * n)]] = -1
        row[order[n - ceil(half * n) :]] = 1
    return b


def mode(number, weights, density):
    """Binary weight and scale of mode 1 to 5; dL/dw is the scale times dL/dw_eff at every weight, pruned or not."""
    he = (2 / weights[0].size) ** 0.5
    return {
        1: lambda: (sign(weights, 1), he),
        2: lambda: (bi_half(weights, 1), he),
        3: lambda: (sign(weights, density), he),
        4: lambda: (bi_half(weights, density), he),
        5: lambda: (bi_half(weights, density), he * density**-0.5),
    }[number]()
