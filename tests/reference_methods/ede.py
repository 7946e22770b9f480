"""EDE, the gradient estimator of IR-Net, for one number."""

from math import log10, tanh


def steepness(progress, t_min, t_max):
    return 10 ** (log10(t_min) + (log10(t_max) - log10(t_min)) * progress)


def slope(x, t):
    k = max(1 / t, 1)
    return k * t * (1 - tanh(t * x) ** 2)
