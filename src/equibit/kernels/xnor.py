"""Products of packed activations and packed weights: exact int32."""

import operator
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from equibit.bits.packing import check_rows
from equibit.errors import InputError
from equibit.kernels import _core


def xnor_linear(
    x_bits: NDArray[np.uint8],
    w_bits: NDArray[np.uint8],
    n: int,
    w_mask: NDArray[np.uint8] | None = None,
) -> NDArray[np.int32]:
    """y[p, m] = sum over i of x[p, i] * w[m, i] = n - 2 popcount(x XOR w).

    With a mask it is popcount(mask) - 2 popcount((x XOR w) AND mask).

    Args:
        x_bits: packed activations, uint8 of shape (P, row_bytes(n)).
        w_bits: packed weights, uint8 of shape (M, row_bytes(n)).
        n: the number of values of a row.
        w_mask: for pruned weights, the mask bits of `equibit.bits.pack_ternary`, shaped like `w_bits`.

    Returns:
        int32 array of shape (P, M).

    Raises:
        InputError: not packed bits, or shapes that do not fit `n`.
        FormatError: a padding bit is set, or a sign bit where the mask bit is 0.
    """
    return _core.xnor_linear(_rows(x_bits, "x_bits"), _rows(w_bits, "w_bits"), n, _optional_rows(w_mask))


def xnor_conv2d(
    x_bits: NDArray[np.uint8],
    w_bits: NDArray[np.uint8],
    *,
    in_channels: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    pad_value: float = 0,
    w_mask: NDArray[np.uint8] | None = None,
) -> NDArray[np.int32]:
    """Cross-correlation of -1/+1 activations with -1/+1 weights; equals `equibit.bits.xnor_conv_reference`.

    The channels of each pixel and group are a row of bits of their own, so that taps meet whole words: x of
    shape (N, C, H, W) is packed as `pack_bits(equibit.bits.pixels_to_rows(x, groups))`. Filters are rows as
    in a file: w of shape (M, C / groups, KH, KW) is packed as `pack_bits(equibit.bits.filters_to_rows(w))`.

    Args:
        x_bits: packed activations, uint8 of shape (N, H, W, groups, row_bytes(C / groups)).
        w_bits: packed filters, uint8 of shape (M, row_bytes(KH * KW * C / groups)).
        in_channels: C.
        kernel_size: (KH, KW), or one number for both; so are `stride`, `padding` and `dilation`.
        stride: steps between outputs.
        padding: places added on both sides of each axis.
        dilation: steps between kernel taps.
        groups: divides C and M.
        pad_value: what the added places read: -1, 0 or 1.
        w_mask: for pruned weights, the mask bits of `equibit.bits.pack_ternary`, shaped like `w_bits`.

    Returns:
        int32 array of shape (N, M, OH, OW), OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1.

    Raises:
        InputError: not packed bits, shapes or sizes that do not fit, or an output without places.
        FormatError: a padding bit is set, or a sign bit where the mask bit is 0.
    """
    if pad_value not in (-1, 0, 1):
        raise InputError(f"pad_value is {pad_value!r}. Allowed: -1, 0, 1.")
    return _core.xnor_conv2d(
        _rows(x_bits, "x_bits"),
        _rows(w_bits, "w_bits"),
        _optional_rows(w_mask),
        in_channels,
        _pair(kernel_size, "kernel_size"),
        _pair(stride, "stride"),
        _pair(padding, "padding"),
        _pair(dilation, "dilation"),
        groups,
        int(pad_value),
    )


def _rows(packed: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    check_rows(packed, name)
    return np.ascontiguousarray(packed)


def _optional_rows(w_mask: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    return None if w_mask is None else _rows(w_mask, "w_mask")


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    if isinstance(value, SupportsIndex):
        return operator.index(value), operator.index(value)
    if len(value) != 2:
        raise InputError(f"{name} is {value!r}. Allowed: one number, or two, for the rows and the columns.")
    return value[0], value[1]
