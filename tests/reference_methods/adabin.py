"""AdaBin on one filter."""

from math import fsum

from reference_methods.ede import slope
from reference_methods.standardized import pull_back, standardized, statistics


def binary(w):
    return [1.0 if h >= 0 else -1.0 for h in standardized(w, len(w))]


def weight(w):
    beta, alpha = statistics(w, len(w))
    return [alpha * b + beta for b in binary(w)]


def gradient(w, g, t):
    """The sum of three ways: through b, through alpha (d alpha / d w_j = h_j / n), through beta (1 / n)."""
    n, h, b, (_, alpha) = len(w), standardized(w, len(w)), binary(w), statistics(w, len(w))
    if not alpha:
        return [0.0] * n
    through_b = pull_back(w, [alpha * gi * slope(hi, t) for gi, hi in zip(g, h, strict=True)], n)
    d_alpha, d_beta = fsum(gi * bi for gi, bi in zip(g, b, strict=True)), fsum(g)
    return [through_b[j] + d_alpha * h[j] / n + d_beta / n for j in range(n)]
