"""What every binary kernel must equal: integer sums over unpacked values, output by output. Slow."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equibit.errors import InputError


def xnor_linear_reference(x: NDArray[Any], w: NDArray[Any]) -> NDArray[np.int32]:
    """y[p, m] = sum over i of x[p, i] * w[m, i].

    Args:
        x: activations of -1 and +1, shape (P, n).
        w: weights of -1 and +1 (0 where pruned), shape (M, n).

    Returns:
        int32 array of shape (P, M).

    Raises:
        InputError: other values, or shapes that do not fit.
    """
    _check_values(x, w)
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1]:
        raise InputError(f"x of shape {x.shape} and w of shape {w.shape}; needed: (P, n) and (M, n).")
    y = np.zeros((x.shape[0], w.shape[0]), np.int32)
    for p, m in np.ndindex(y.shape):
        y[p, m] = _dot(x[p], w[m])
    return y


def xnor_conv_reference(
    x: NDArray[Any],
    w: NDArray[Any],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    pad_value: float = 0,
) -> NDArray[np.int32]:
    """Cross-correlation of -1/+1 activations with -1/+1 weights in 1, 2 or 3 spatial dimensions.

    y[b, m, o] = sum over the channels c of m's group and the kernel taps k of
    x[b, c, o * stride + k * dilation - padding] * w[m, c, k], where a place outside x reads `pad_value`.

    Args:
        x: activations of shape (N, C, *spatial).
        w: weights of shape (M, C / groups, *kernel), 0 where pruned.
        stride: steps between outputs, one number or one per spatial axis; so are `padding` and `dilation`.
        padding: places added on both sides of each spatial axis.
        dilation: steps between kernel taps.
        groups: divides C and M.
        pad_value: -1, 0 or 1.

    Returns:
        int32 array (N, M, *out), out = (spatial + 2 padding - dilation (kernel - 1) - 1) // stride + 1.

    Raises:
        InputError: other values, shapes that do not fit, or an output without places.
    """
    _check_values(x, w)
    _check_convolution(x, w, groups, pad_value)
    axes = x.ndim - 2
    stride, padding, dilation = (
        _per_axis(stride, axes, 1),
        _per_axis(padding, axes, 0),
        _per_axis(dilation, axes, 1),
    )
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)], constant_values=pad_value)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:], strict=True)]
    out = [(size - r) // s + 1 for size, r, s in zip(padded.shape[2:], reach, stride, strict=True)]
    if min(out) < 1:
        raise InputError(f"x of shape {x.shape} is smaller than the kernel's reach {tuple(reach)}.")
    y = np.zeros((x.shape[0], w.shape[0], *out), np.int32)
    inputs, outputs = w.shape[1], w.shape[0] // groups
    for b, m, *place in np.ndindex(y.shape):
        first = m // outputs * inputs
        taps = (slice(o * s, o * s + r, d) for o, s, r, d in zip(place, stride, reach, dilation, strict=True))
        y[(b, m, *place)] = _dot(padded[(b, slice(first, first + inputs), *taps)], w[m])
    return y


def conv_sums(
    x: NDArray[Any],
    w: NDArray[Any],
    *,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
    pad_value: float = 0,
) -> NDArray[np.float64]:
    """Sums of a convolution in float64, exact for integers: `xnor_conv_reference` for any values and uneven pads.

    Args:
        x: inputs of shape (N, C, *spatial).
        w: weights of shape (M, C / groups, *kernel).
        stride: steps between outputs, one per spatial axis; so is `dilation`.
        pads: places added before each axis, then after each.
        dilation: steps between kernel taps.
        groups: divides C and M.
        pad_value: what added places read.

    Returns:
        float64 array (N, M, *out).
    """
    axes = x.ndim - 2
    around = [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)]
    padded = np.pad(x.astype(np.float64), around, constant_values=pad_value)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:], strict=True)]
    out = [(size - r) // s + 1 for size, r, s in zip(padded.shape[2:], reach, stride, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *out))
    inputs, outputs = w.shape[1], w.shape[0] // groups
    rows = w.reshape(groups, outputs, w[0].size).astype(np.float64)
    for group, *place in np.ndindex(groups, *out):
        taps = (slice(o * s, o * s + r, d) for o, s, r, d in zip(place, stride, reach, dilation, strict=True))
        window = padded[(slice(None), slice(group * inputs, (group + 1) * inputs), *taps)]
        filters = slice(group * outputs, (group + 1) * outputs)
        y[(slice(None), filters, *place)] = window.reshape(len(x), w[0].size) @ rows[group].T
    return y


def conv_transpose_sums(
    x: NDArray[Any],
    w: NDArray[Any],
    *,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
    output_padding: Sequence[int],
) -> NDArray[np.float64]:
    """Sums of a transposed convolution in float64: every input is added to all the outputs that it reaches.

    Args:
        x: inputs of shape (N, C, *spatial).
        w: weights, filters first: (M, C / groups, *kernel).
        stride: steps between the outputs of neighbouring inputs, one per spatial axis; so are the others.
        pads: places cropped before each axis, then after each.
        dilation: steps between kernel taps.
        groups: divides C and M.
        output_padding: places added after each axis.

    Returns:
        float64 array (N, M, *out).
    """
    axes = x.ndim - 2
    geometry = zip(x.shape[2:], stride, dilation, w.shape[2:], output_padding, strict=True)
    whole = [(size - 1) * s + d * (k - 1) + 1 + extra for size, s, d, k, extra in geometry]
    y = np.zeros((x.shape[0], w.shape[0], *whole))
    inputs, outputs = w.shape[1], w.shape[0] // groups
    for group, *place in np.ndindex(groups, *x.shape[2:]):
        values = x[(slice(None), slice(group * inputs, (group + 1) * inputs), *place)].astype(np.float64)
        filters = slice(group * outputs, (group + 1) * outputs)
        for tap in np.ndindex(w.shape[2:]):
            at = (p * s + t * d for p, s, t, d in zip(place, stride, tap, dilation, strict=True))
            y[(slice(None), filters, *at)] += values @ w[(filters, slice(None), *tap)].astype(np.float64).T
    cropped = (slice(begin, size - end) for begin, end, size in zip(pads[:axes], pads[axes:], whole, strict=True))
    return y[(slice(None), slice(None), *cropped)]


def _dot(a: NDArray[Any], b: NDArray[Any]) -> int:
    return int((a.astype(np.int64) * b.astype(np.int64)).sum())


def _check_values(x: NDArray[Any], w: NDArray[Any]) -> None:
    if not np.isin(x, (-1, 1)).all():
        raise InputError("x holds values other than -1 and +1.")
    if not np.isin(w, (-1, 0, 1)).all():
        raise InputError("w holds values other than -1, +1 and, where pruned, 0.")


def _check_convolution(x: NDArray[Any], w: NDArray[Any], groups: int, pad_value: float) -> None:
    if x.ndim not in (3, 4, 5) or w.ndim != x.ndim:
        raise InputError(f"x has {x.ndim} axes and w {w.ndim}; needed: the same number, 3, 4 or 5.")
    if groups < 1 or x.shape[1] != groups * w.shape[1] or w.shape[0] % groups:
        raise InputError(f"x of shape {x.shape} and w of shape {w.shape} do not fit with groups = {groups}.")
    if pad_value not in (-1, 0, 1):
        raise InputError(f"pad_value = {pad_value}. Allowed: -1, 0, 1.")


def _per_axis(value: int | Sequence[int], axes: int, least: int) -> tuple[int, ...]:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(values) != axes or min(values) < least:
        raise InputError(f"{value}; needed: one number of at least {least}, or one for each of {axes} axes.")
    return values
