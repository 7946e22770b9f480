"""The idx format of the MNIST family: big-endian header, then unsigned bytes.

Header: two zero bytes, the element type (8 = unsigned byte), the number of dimensions, and each dimension
as a 32-bit integer. Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

import math
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from equibit.errors import FormatError

_UNSIGNED_BYTE = 8


def parse(path: Path, content: bytes, record_shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Read an idx file of unsigned bytes.

    Args:
        path: only for error messages.
        content: the unpacked file.
        record_shape: the shape of one record, (28, 28) for images and () for labels.

    Returns:
        (N, *record_shape), a read-only view of `content`.

    Raises:
        FormatError: wrong magic number, wrong record shape, or a length that does not fit the header.
    """
    ndim = 1 + len(record_shape)
    header = 4 + 4 * ndim
    if len(content) < header:
        raise FormatError(f"{path}: found {len(content)} bytes, expected an idx header of {header}.")
    magic, *dims = struct.unpack(f">I{ndim}I", content[:header])
    expected_magic = _UNSIGNED_BYTE << 8 | ndim
    if magic != expected_magic:
        raise FormatError(f"{path}: found magic number {magic:#010x}, expected {expected_magic:#010x}.")
    if tuple(dims[1:]) != record_shape:
        raise FormatError(f"{path}: found records of shape {tuple(dims[1:])}, expected {record_shape}.")
    expected_size = header + math.prod(dims)
    if len(content) != expected_size:
        raise FormatError(
            f"{path}: found {len(content):,} bytes, expected {expected_size:,} for the {dims[0]:,} records "
            "its header announces."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(dims)
