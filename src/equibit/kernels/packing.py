"""Signs to bits and back, as `equibit.bits` defines it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from equibit.bits.packing import check_rows
from equibit.errors import InputError
from equibit.kernels import _core

_PACKED_FROM = ("float16", "float32", "float64", "int8")
_UNPACK: dict[str, Callable[[NDArray[np.uint8], int], NDArray[Any]]] = {
    "int8": _core.unpack_i8,
    "float32": _core.unpack_f32,
    "float64": _core.unpack_f64,
}


def pack_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Pack the signs of the last axis: bit i is set iff values[..., i] >= 0. Equals `equibit.bits.pack_bits`.

    Args:
        values: float16, float32, float64 or int8 array of shape (..., n); n may be 0.

    Returns:
        uint8 array of shape (..., row_bytes(n)).

    Raises:
        InputError: another type, no axis to pack, or a NaN, which has no sign.
    """
    array = np.asarray(values)
    if array.dtype.name not in _PACKED_FROM or array.ndim == 0:
        raise InputError(
            f"cannot pack {array.dtype} values of shape {array.shape}. "
            f"Allowed: {', '.join(_PACKED_FROM)} of shape (..., n)."
        )
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    packed = _core.pack_bits(_as_matrix(array))
    return packed.reshape(*array.shape[:-1], packed.shape[-1])


def unpack_bits(packed: NDArray[np.uint8], n: int, dtype: DTypeLike = np.int8) -> NDArray[Any]:
    """Unpack rows of `n` bits: +1 where the bit is set, else -1. Equals `equibit.bits.unpack_bits`.

    Args:
        packed: uint8 array of shape (..., row_bytes(n)).
        n: the number of values of a row.
        dtype: of the result: int8, float32 or float64.

    Returns:
        Array of shape (..., n).

    Raises:
        InputError: `packed` is not uint8, its rows are not row_bytes(n) long, or another `dtype`.
        FormatError: a padding bit is set; the message names the first such row.
    """
    check_rows(packed, "packed")
    kind = np.dtype(dtype).name
    if kind not in _UNPACK:
        raise InputError(f"cannot unpack to {kind}. Allowed: {', '.join(_UNPACK)}.")
    return _UNPACK[kind](_as_matrix(packed), n).reshape(*packed.shape[:-1], n)


def _as_matrix(array: NDArray[Any]) -> NDArray[Any]:
    """The array (..., n) as contiguous (rows, n)."""
    return np.ascontiguousarray(array).reshape(math.prod(array.shape[:-1]), array.shape[-1])
