"""ReSTE on one layer, a flat list of its weights."""

from math import cos, fsum, pi
from statistics import fmean


def order(progress, o_end):
    return 1 + (1 - cos(pi * progress / 2)) * (o_end - 1)


def slope(x, o):
    if abs(x) > 1.5:
        return 0.0
    if abs(x) <= 0.1:
        return 0.1 ** (1 / o) / 0.1
    return (1 / o) * abs(x) ** ((1 - o) / o)


def binary(layer):
    return [1.0 if x >= 0 else -1.0 for x in layer]


def weight(layer):
    alpha = fmean(abs(x) for x in layer)
    return [alpha * b for b in binary(layer)]


def gradient(layer, g, o):
    b = binary(layer)
    alpha, through_alpha = fmean(abs(x) for x in layer), fsum(gi * bi for gi, bi in zip(g, b, strict=True))
    return [alpha * gi * slope(x, o) + through_alpha * bi / len(layer) for gi, bi, x in zip(g, b, layer, strict=True)]
