"""Selection by rank, exact under ties, without sorting."""

import torch
from torch import Tensor

_HALF_TYPES = (torch.float16, torch.bfloat16)


def widen(x: Tensor) -> Tensor:
    """Half types as float32, everything else as it is: ranks and statistics need distinct, precise values."""
    return x.float() if x.dtype in _HALF_TYPES else x


def lowest(rows: Tensor, count: int) -> Tensor:
    """Marks the `count` lowest entries of each row in the stable ascending order (by value, then by index).

    Linear time: the count-th smallest value of a row is its threshold t; entries below t are marked, and of those
    equal to t the first in index order until `count` is reached. Comparisons make -0.0 equal 0.0.

    Args:
        rows: (filters, n), no NaN.
        count: 0 <= count <= n.

    Returns:
        Boolean mask of the shape of `rows` with exactly `count` true entries in each row.
    """
    if count == 0:
        return torch.zeros_like(rows, dtype=torch.bool)
    if count == rows.shape[1]:
        return torch.ones_like(rows, dtype=torch.bool)
    # On CUDA kthvalue uses one block a row and is slower than a sort (pytorch issue 75599).
    ordered = rows.sort(dim=1).values if rows.is_cuda else None
    threshold = rows.kthvalue(count, dim=1, keepdim=True).values if ordered is None else ordered[:, count - 1, None]
    within = rows <= threshold
    looks_at_values = rows.device.type == "cpu" and not torch.compiler.is_compiling()
    if looks_at_values and bool((within.sum(dim=1) == count).all()):
        return within  # no row has a tie at its threshold
    below, tied = rows < threshold, rows == threshold
    room = count - below.sum(dim=1, keepdim=True)
    return below | (tied & (tied.cumsum(dim=1, dtype=torch.int32) <= room))
