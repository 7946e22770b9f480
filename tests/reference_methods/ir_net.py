"""IR-Net on one filter."""

from math import log2
from statistics import fmean

from reference_methods.ede import slope
from reference_methods.standardized import pull_back, standardized


def scale(w):
    magnitude = fmean(abs(h) for h in standardized(w, len(w) - 1))
    return 2.0 ** round(log2(magnitude)) if magnitude else 1.0


def binary(w):
    return [1.0 if h >= 0 else -1.0 for h in standardized(w, len(w) - 1)]


def weight(w):
    return [scale(w) * b for b in binary(w)]


def gradient(w, g, t):
    u = [scale(w) * gi * slope(h, t) for gi, h in zip(g, standardized(w, len(w) - 1), strict=True)]
    return pull_back(w, u, len(w) - 1)
