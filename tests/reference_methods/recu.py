"""ReCU on one layer, a list of filters."""

from math import exp, log, sqrt
from statistics import fmean

from reference_methods.standardized import pull_back, standardized

FACTOR, EPS = 2 * sqrt(2), 1e-5


def tau(progress, tau_min, tau_max):
    a = (tau_max - tau_min) / (exp(1) - 1)
    return a * exp(progress) + (tau_min - a)


def first(w):
    """w1 of one filter."""
    return [FACTOR * h for h in standardized(w, len(w) - 1, EPS)]


def limit(layer, tau):
    """Q."""
    return -fmean(abs(x) for w in layer for x in first(w)) * log(2 - 2 * tau)


def binary(layer, tau):
    q = limit(layer, tau)
    return [[1.0 if min(max(x, -q), q) >= 0 else -1.0 for x in first(w)] for w in layer]


def weight(layer, scales, tau):
    return [[s * b for b in row] for s, row in zip(scales, binary(layer, tau), strict=True)]


def gradient(layer, upstream, scales, tau):
    """Of the latents."""
    q, rows = limit(layer, tau), []
    for w, g, s in zip(layer, upstream, scales, strict=True):
        u = [s * gi * FACTOR if abs(x) <= q else 0.0 for gi, x in zip(g, first(w), strict=True)]
        rows.append(pull_back(w, u, len(w) - 1, EPS))
    return rows


def scale_gradient(layer, upstream, tau):
    return [sum(g * b for g, b in zip(*pair, strict=True)) for pair in zip(upstream, binary(layer, tau), strict=True)]
