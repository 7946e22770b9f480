"""Rows of -1, 0 and +1 (pruned weights) as two bit planes: the signs and the mask of the kept values."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from equibit.bits.packing import pack_flags, row_name, unpack_bits, unpack_flags
from equibit.errors import FormatError, InputError


def pack_ternary(values: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pack -1, 0 and +1: the mask bit is set iff the value is not 0, the sign bit iff it is +1.

    Args:
        values: integer or float array of shape (..., n) that holds nothing but -1, 0 and +1.

    Returns:
        Two uint8 arrays of shape (..., row_bytes(n)): sign bits and mask bits.

    Raises:
        InputError: any other value, any other type, or no axis to pack.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iuf" or array.ndim == 0:
        raise InputError(
            f"cannot pack {array.dtype} values of shape {array.shape} as -1, 0 and +1. "
            "Allowed: integer or float arrays of shape (..., n)."
        )
    plus, minus = array == 1, array == -1
    other = ~(plus | minus | (array == 0))
    if other.any():
        raise InputError(f"{row_name(other.any(axis=-1))} holds {array[other][0]}. Allowed: -1, 0 and +1.")
    return pack_flags(plus), pack_flags(plus | minus)


def unpack_ternary(
    bits: NDArray[np.uint8], mask: NDArray[np.uint8], n: int, dtype: DTypeLike = np.int8
) -> NDArray[Any]:
    """Unpack sign bits and mask bits, both (..., row_bytes(n)), to -1, 0 and +1 of shape (..., n).

    Raises:
        InputError: as `unpack_bits`, or the two planes differ in shape.
        FormatError: a padding bit is set, or a sign bit where the mask bit is 0; names the first such row.
    """
    signs = unpack_bits(bits, n, dtype)
    kept = unpack_flags(mask, n, "mask")
    if signs.shape != kept.shape:
        raise InputError(f"sign bits of shape {bits.shape} and mask bits of shape {mask.shape}; they must agree.")
    stray = ((signs > 0) & ~kept).any(axis=-1)
    if np.any(stray):
        raise FormatError(f"{row_name(stray)} has a sign bit set where its mask bit is 0; such a bit is zero.")
    return np.where(kept, signs, np.zeros((), signs.dtype))
