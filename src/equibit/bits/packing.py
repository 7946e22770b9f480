"""Rows of signs to rows of bits and back."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from equibit.errors import FormatError, InputError

WORD_BITS = 64
WORD_BYTES = WORD_BITS // 8


def words(n: int) -> int:
    """The number of 64-bit words of a row of `n` bits: ceil(n / 64).

    Raises:
        InputError: `n` is negative.
    """
    if n < 0:
        raise InputError(f"a row of {n} bits. Allowed: 0 or more.")
    return -(-n // WORD_BITS)


def row_bytes(n: int) -> int:
    """The number of bytes of a row of `n` bits, padding included: 8 * words(n)."""
    return WORD_BYTES * words(n)


def pack_bits(values: ArrayLike) -> NDArray[np.uint8]:
    """Pack the signs of the last axis: bit i is set iff values[..., i] >= 0, so 0.0 and -0.0 give a set bit.

    Equals `numpy.packbits(values >= 0, axis=-1, bitorder="little")`, padded with zeros to whole 64-bit words.

    Args:
        values: real array of shape (..., n); n may be 0.

    Returns:
        uint8 array of shape (..., row_bytes(n)).

    Raises:
        InputError: not an array of real numbers, no axis to pack, or a NaN, which has no sign.
    """
    array: NDArray[Any] = np.asarray(values)
    if array.dtype.kind not in "iuf" or array.ndim == 0:
        raise InputError(
            f"cannot pack {array.dtype} values of shape {array.shape}. "
            "Allowed: integer or float arrays of shape (..., n), for example of -1 and +1."
        )
    nan = np.isnan(array).any(axis=-1)
    if np.any(nan):
        raise InputError(f"{row_name(nan)} holds a NaN, which has no sign. Allowed: every other real number.")
    return pack_flags(array >= 0)


def unpack_bits(packed: NDArray[np.uint8], n: int, dtype: DTypeLike = np.int8) -> NDArray[Any]:
    """Unpack rows of `n` bits: +1 where the bit is set, -1 where it is clear.

    Args:
        packed: uint8 array of shape (..., row_bytes(n)).
        n: the number of values of a row.
        dtype: of the result; a signed integer or float type.

    Returns:
        Array of shape (..., n).

    Raises:
        InputError: `packed` is not uint8, its rows are not row_bytes(n) long, or `dtype` cannot hold -1.
        FormatError: a padding bit is set; the message names the first such row.
    """
    kind = np.dtype(dtype)
    if kind.kind not in "if":
        raise InputError(f"cannot unpack to {kind}. Allowed: types that hold -1 and +1, for example int8.")
    flags = unpack_flags(packed, n, "packed")
    return np.where(flags, kind.type(1), kind.type(-1))


def pack_flags(flags: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pack booleans (..., n) to bytes (..., row_bytes(n)); a true one sets its bit."""
    n = flags.shape[-1]
    packed = np.zeros((*flags.shape[:-1], row_bytes(n)), np.uint8)
    packed[..., : -(-n // 8)] = np.packbits(flags, axis=-1, bitorder="little")
    return packed


def unpack_flags(packed: NDArray[np.uint8], n: int, name: str) -> NDArray[np.bool_]:
    """The bits (..., n) of rows (..., row_bytes(n)) as booleans; refuses a row with a padding bit set."""
    check_rows(packed, name)
    if packed.shape[-1] != row_bytes(n):
        given = packed.shape[-1]
        raise InputError(f"{name} has rows of {given} bytes, but {n} bits take row_bytes({n}) = {row_bytes(n)}.")
    flags = np.unpackbits(packed, axis=-1, bitorder="little").astype(np.bool_)
    padding = flags[..., n:].any(axis=-1)
    if np.any(padding):
        raise FormatError(f"{name}: {row_name(padding)} has a bit set after its {n} bits; padding bits are zero.")
    return flags[..., :n]


def check_rows(packed: NDArray[np.uint8], name: str) -> None:
    """Refuse what cannot be rows of packed bits: not uint8, no axis, or no whole number of words."""
    if not isinstance(packed, np.ndarray) or packed.dtype != np.uint8 or packed.ndim == 0:
        kind, shape = getattr(packed, "dtype", type(packed).__name__), getattr(packed, "shape", ())
        raise InputError(f"{name} is {kind} of shape {shape}; needed: a uint8 array (..., row_bytes(n)).")
    if packed.shape[-1] % WORD_BYTES:
        raise InputError(f"{name} has rows of {packed.shape[-1]} bytes; a row is whole words of 8 bytes.")


def row_name(wrong: NDArray[np.bool_] | np.bool_) -> str:
    """How an error names the first row marked wrong: `row 3`, or `row (0, 3)` where rows have two axes."""
    index = tuple(int(i) for i in np.argwhere(np.atleast_1d(wrong))[0])
    return f"row {index[0] if len(index) == 1 else index}"
