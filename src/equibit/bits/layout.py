"""The order of weights and activations within a row of bits: channel fastest, so that the two line up."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equibit.errors import InputError


def filters_to_rows(weight: NDArray[Any]) -> NDArray[Any]:
    """One row per filter, its weights in the order of the kernel axes, then input channel (fastest).

    Args:
        weight: (M, Cin / groups, *kernel) of a convolution, or (M, n) of a linear layer, left unchanged. That of a
            transposed convolution is given filters first, as `equibit.layers.filters_first` makes it.

    Returns:
        Array of shape (M, n) with n = Cin / groups * prod(kernel); a view where numpy can give one.

    Raises:
        InputError: fewer than two axes.
    """
    if weight.ndim < 2:
        raise InputError(f"a weight of shape {weight.shape} has no filters. Needed: (M, n) or (M, Cin, *kernel).")
    return np.moveaxis(weight, 1, -1).reshape(weight.shape[0], math.prod(weight.shape[1:]))


def rows_to_filters(rows: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """The inverse of `filters_to_rows`: rows (M, n) to the weight of shape (M, Cin / groups, *kernel).

    Raises:
        InputError: `rows` is not what a weight of that shape gives.
    """
    filters, *inner = shape
    if rows.shape != (filters, math.prod(inner)) or not inner:
        raise InputError(f"rows of shape {rows.shape} do not make a weight of shape {tuple(shape)}.")
    channels, *kernel = inner
    return np.moveaxis(rows.reshape(filters, *kernel, channels), -1, 1)


def pixels_to_rows(values: NDArray[Any], groups: int = 1) -> NDArray[Any]:
    """One row per pixel and group, its channels in order: what a binary convolution packs of its input.

    Args:
        values: activations of shape (N, C, *spatial).
        groups: of the convolution; divides C.

    Returns:
        View of shape (N, *spatial, groups, C / groups).

    Raises:
        InputError: fewer than two axes, or `groups` does not divide C.
    """
    if values.ndim < 2:
        raise InputError(f"activations of shape {values.shape}; needed: (N, C, *spatial).")
    batch, channels, *spatial = values.shape
    if groups < 1 or channels % groups:
        raise InputError(f"groups = {groups} does not divide {channels} channels.")
    return np.moveaxis(values.reshape(batch, groups, channels // groups, *spatial), (1, 2), (-2, -1))
