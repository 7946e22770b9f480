"""Dot products of rows of bits: the algebra every kernel rests on."""

import numpy as np
from numpy.typing import NDArray

from equibit.bits.packing import check_rows, row_bytes
from equibit.errors import InputError

# numpy.bitwise_count needs numpy 2; the set bits of each byte do not.
_SET_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.int64)


def xnor_dot(a_bits: NDArray[np.uint8], b_bits: NDArray[np.uint8], n: int) -> NDArray[np.int64]:
    """Dot product of rows of n values of -1 and +1: n - 2 popcount(a XOR b); the zero padding bits cancel.

    Args:
        a_bits: uint8 array of shape (..., row_bytes(n)).
        b_bits: the same; the leading axes broadcast.
        n: the number of values of a row.

    Returns:
        int64 array of the broadcast leading shape.

    Raises:
        InputError: not packed bits, rows that are not row_bytes(n) long, or shapes that do not broadcast.
    """
    _check_operands(a_bits=a_bits, b_bits=b_bits)
    if a_bits.shape[-1] != row_bytes(n):
        raise InputError(f"rows of {a_bits.shape[-1]} bytes; {n} bits take row_bytes({n}) = {row_bytes(n)}.")
    return n - 2 * _popcount(a_bits ^ b_bits)


def masked_xnor_dot(
    a_bits: NDArray[np.uint8], b_bits: NDArray[np.uint8], mask_bits: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Dot product where the mask is set: popcount(mask) - 2 popcount((a XOR b) AND mask).

    Args:
        a_bits: uint8 array of shape (..., B).
        b_bits: the same; the leading axes broadcast.
        mask_bits: the same; a clear bit makes its product 0.

    Returns:
        int64 array of the broadcast leading shape.

    Raises:
        InputError: not packed bits, rows of different lengths, or shapes that do not broadcast.
    """
    _check_operands(a_bits=a_bits, b_bits=b_bits, mask_bits=mask_bits)
    return _popcount(mask_bits) - 2 * _popcount((a_bits ^ b_bits) & mask_bits)


def _popcount(packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.asarray(_SET_BITS[packed].sum(axis=-1))


def _check_operands(**operands: NDArray[np.uint8]) -> None:
    for name, operand in operands.items():
        check_rows(operand, name)
    shapes = {name: operand.shape for name, operand in operands.items()}
    if len({shape[-1] for shape in shapes.values()}) > 1:
        raise InputError(f"rows of different lengths: {shapes}.")
    try:
        np.broadcast_shapes(*(shape[:-1] for shape in shapes.values()))
    except ValueError as error:
        raise InputError(f"leading axes that do not broadcast: {shapes}.") from error
