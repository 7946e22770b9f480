"""SiMaN on one filter; its projection on one layer, a list of filters."""

from math import floor, fsum, sqrt
from statistics import fmean

from reference_methods.standardized import pull_back, standardized

EPS = 1e-5


def sgn(x):
    return (x > 0) - (x < 0)


def deviations(w):
    mean = fmean(w)
    return [x - mean for x in w]


def half(w):
    return len(w) // 2


def optimal(w):
    """The number of ones whose code has the smallest angle with the magnitudes, the smallest of equals."""
    largest = sorted((abs(c) for c in deviations(w)), reverse=True)
    cosines = [fsum(largest[:count]) / sqrt(count) for count in range(1, len(w) + 1)]
    return cosines.index(max(cosines)) + 1


def binary(w, ones):
    c = deviations(w)
    order = sorted(range(len(w)), key=lambda i: (abs(c[i]), i))
    chosen = set(order[len(w) - ones :])
    return [1.0 if i in chosen else -1.0 for i in range(len(w))]


def gradient(w, g, scale):
    u = [scale * gi * sgn(c) for gi, c in zip(g, deviations(w), strict=True)]
    return pull_back(w, u, len(w) - 1, EPS)


def quantile(values, share):
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = min(floor(position), max(len(ordered) - 2, 0))
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def projected(layer, share):
    centred = [deviations(w) for w in layer]
    magnitudes = [abs(c) for row in centred for c in row]
    low, high = quantile(magnitudes, share), quantile(magnitudes, 1 - share)
    return [[min(max(abs(c), low), high) * (1 if c >= 0 else -1) for c in row] for row in centred]


def activation_gradient(x, g):
    """dL/dx of sign(x standardised) with the slope max(0, 2 - 2|h|), for one sample."""
    h = standardized(x, len(x) - 1, EPS)
    return pull_back(x, [gi * max(0, 2 - 2 * abs(hi)) for gi, hi in zip(g, h, strict=True)], len(x) - 1, EPS)
