"""Selection by rank on CUDA: one program per row, in registers. The only file that imports triton."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

LONGEST_ROW = 16384  # what the registers of one program hold
_LARGEST_KEY = tl.constexpr(0x7FFFFFFF)


def takes(values: Tensor) -> bool:
    """Whether the kernel selects from such values: float32 rows of at most LONGEST_ROW."""
    return values.dtype == torch.float32 and 0 < values.numel() <= LONGEST_ROW * len(values)


def select_rows(
    rows: Tensor, out: Tensor, low: int, middle: int, levels: Sequence[float], *, magnitude: bool, taps: int
) -> None:
    """`equibit.kernels.torch_ops.select` of (rows, n) into `out`, without waiting for the device.

    Each row is stored as (taps, n / taps) and indexed as (n / taps, taps). The first call for a size compiles the
    kernel, so make one before a CUDA graph is captured.
    """
    n = rows.shape[1]
    block = triton.next_power_of_2(n)
    _select_row[(rows.shape[0],)](
        rows,
        out,
        n,
        low,
        low + middle,
        *levels,
        taps,
        magnitude,
        block,
        num_warps=min(max(block // 512, 1), 16),
    )


@triton.jit
def _select_row(rows, out, n, low, kept, lowest, between, highest, taps, magnitude: tl.constexpr, block: tl.constexpr):
    """Writes one row. A key is the sign and magnitude of a float as a two's complement number, as in select.h."""
    index = tl.arange(0, block)
    place = tl.program_id(0).to(tl.int64) * n + (index % taps) * (n // taps) + index // taps
    used = index < n
    bits = tl.load(rows + place, mask=used, other=0.0).to(tl.int32, bitcast=True)
    size = bits & _LARGEST_KEY
    sign = bits >> 31
    key = size if magnitude else (size ^ sign) - sign
    key = tl.where(used, key, _LARGEST_KEY)
    level = tl.where(_among(key, kept), between, highest)
    level = tl.where(_among(key, low), lowest, level)
    tl.store(out + place, level, mask=used)


@triton.jit
def _among(key, count):
    """Marks the first `count` keys in the order by key, then by index."""
    threshold = tl.full((), _LARGEST_KEY, tl.int32)
    least = tl.full((), -_LARGEST_KEY, tl.int32)
    for _ in range(32):  # halves the keys that can be the threshold, the least with `count` keys up to it
        middle = (least & threshold) + ((least ^ threshold) >> 1)
        enough = tl.sum((key <= middle).to(tl.int32)) >= count
        threshold = tl.where(enough, middle, threshold)
        least = tl.where(enough, least, middle + 1)
    below = key < threshold
    tied = key == threshold
    room = count - tl.sum(below.to(tl.int32))
    return below | (tied & (tl.cumsum(tied.to(tl.int32)) <= room))
