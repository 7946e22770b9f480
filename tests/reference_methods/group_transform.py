"""The four forms of group weight transformations on one group, a list of weights."""

from math import cos, fsum, pi
from statistics import fmean


def kappa(schedule, start, end, u):
    return {
        "geometric": start * (end / start) ** u if start else 0.0,
        "linear": start * (1 - u) + end * u,
        "cosine": end + 0.5 * (start - end) * (1 + cos(pi * u)),
        "constant": start,
    }[schedule]


def sign(theta):
    return 1 if theta >= 0 else -1


def part(theta, i):
    """Indices of the weights with the sign of weight i."""
    return [j for j in range(len(theta)) if sign(theta[j]) == sign(theta[i])]


def mean_over_part(theta, values):
    return [fmean(values[j] for j in part(theta, i)) for i in range(len(theta))]


def mean_magnitude(theta):
    return fmean(map(abs, theta)) or 1.0


def power(theta, k):
    return [max(abs(x), 1e-8) ** k for x in theta]


def relaxed(form, theta, k, scale):
    s = [scale * sign(x) for x in theta]
    if form == "3":
        values = power(theta, k)
        return [si * v / m for si, v, m in zip(s, values, mean_over_part(theta, values), strict=True)]
    if form == "2":
        return [k * x + (1 - k) * m for x, m in zip(theta, mean_over_part(theta, theta), strict=True)]
    unit, factor = (mean_magnitude(theta), scale) if form == "1b" else (1.0, 1.0)
    t = [x / unit for x in theta]
    return [si + factor * k * (ti - m) for si, ti, m in zip(s, t, mean_over_part(theta, t), strict=True)]


def gradient(form, theta, g, k, scale):
    """The derivatives of the specification, worked out by hand; s of a zero is +1."""
    n, s = len(theta), [sign(x) for x in theta]
    if form == "2":
        return [k * gi + (1 - k) * m for gi, m in zip(g, mean_over_part(theta, g), strict=True)]
    if form == "3":
        values = power(theta, k)
        rho = [v / m for v, m in zip(values, mean_over_part(theta, values), strict=True)]
        pulled = mean_over_part(theta, [si * gi * r for si, gi, r in zip(s, g, rho, strict=True)])
        return [
            scale * k / abs(x) * r * (gi - si * p) if abs(x) >= 1e-8 else 0.0
            for x, r, gi, si, p in zip(theta, rho, g, s, pulled, strict=True)
        ]
    h = [k * (gi - m) for gi, m in zip(g, mean_over_part(theta, g), strict=True)]
    if form == "1a":
        return h
    unit, h = mean_magnitude(theta), [scale * x for x in h]
    slope = fsum(hi * x for hi, x in zip(h, theta, strict=True)) / (n * unit**2) if any(theta) else 0.0
    return [hi / unit - si * slope for hi, si in zip(h, s, strict=True)]


def two_values(theta):
    """Scale and offset of form 2; an empty part has the negative of the other's mean."""
    upper, lower = [x for x in theta if x >= 0], [x for x in theta if x < 0]
    above = fmean(upper) if upper else -fmean(lower)
    below = fmean(lower) if lower else -fmean(upper)
    return (above - below) / 2, (above + below) / 2
