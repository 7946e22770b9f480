"""One filter standardised, and a gradient pulled back through it, in float64 loops."""

from math import fsum, sqrt
from statistics import fmean


def statistics(w, divisor, eps=0.0):
    """Mean and deviation; the deviation of equal weights is 0."""
    mean = fmean(w)
    variance = fsum((x - mean) ** 2 for x in w) / max(divisor, 1)
    return mean, sqrt(variance + eps) if variance > 0 else 0.0


def standardized(w, divisor, eps=0.0):
    mean, deviation = statistics(w, divisor, eps)
    return [(x - mean) / deviation if deviation else 0.0 for x in w]


def pull_back(w, u, divisor, eps=0.0):
    """dL/dw from u = dL/dh, with dh_i/dw_j = (1[i = j] - 1 / n) / s - (w_i - m) (w_j - m) / (divisor s^3)."""
    n, (mean, s) = len(w), statistics(w, divisor, eps)
    if not s:
        return [0.0] * n
    return [
        fsum(
            u[i] * (((i == j) - 1 / n) / s - (w[i] - mean) * (w[j] - mean) / (max(divisor, 1) * s**3)) for i in range(n)
        )
        for j in range(n)
    ]
