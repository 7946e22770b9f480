"""Centred and standardised tensors: what several papers take the sign or the magnitude of.

A row is everything at one index of dim 0: a filter of a weight, a sample of an activation.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Standardized(NamedTuple):
    """h = (x - mean) / deviation per row, of the shape of x; mean and deviation are (rows, 1, ...)."""

    values: Tensor
    mean: Tensor
    deviation: Tensor


def centre(x: Tensor) -> tuple[Tensor, Tensor]:
    """x - mean and mean, the mean of every row, (rows, 1, ...); a row of equal values becomes exactly 0."""
    axes, constant = tuple(range(1, x.dim())), x.detach()
    # Rounding can carry the mean past all values; kept among them, equal values are centred to exactly 0.
    bounds = constant.amin(axes, keepdim=True), constant.amax(axes, keepdim=True)
    mean = x.mean(axes, keepdim=True).clamp(*bounds)
    return x - mean, mean


def standardize(x: Tensor, *, biased: bool = False, eps: float = 0.0) -> Standardized:
    """Centres each row and divides it by its deviation sqrt(var + eps); differentiable in all three results.

    With u = dL/dh, and N = n - 1 (n if `biased`): dL/dx = (u - mean(u) - h sum(u h) / N) / deviation.

    A row of zero variance, as one of a single value is, gets h = 0, deviation 0 and zero gradient.

    Args:
        x: float32 or float64, rows in dim 0.
        biased: Whether the variance is divided by n instead of n - 1.
        eps: Added to the variance.
    """
    axes, n = tuple(range(1, x.dim())), x.shape[1:].numel()
    centred, mean = centre(x)
    variance = centred.square().sum(axes, keepdim=True) / max(n if biased else n - 1, 1)
    varies = variance > 0
    deviation = torch.where(varies, variance + eps, 1).sqrt()  # 1: the slope of the root at 0 is infinite
    values = centred * (varies / deviation)
    return Standardized(values, torch.where(varies, mean, mean.detach()), varies * deviation)
