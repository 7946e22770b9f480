"""Binary weights as torch operators: `equibit::select` by rank, `equibit::signed` by sign; straight-through gradients.

And `equibit::values_at`, the values at given ranks, for quantiles of whole layers.

The CPU runs the C++ kernel. CUDA runs the Triton kernel of `triton_select` where Triton is installed (the CUDA builds
of torch bring it) and takes the rows; the rest, and every other device, runs plain torch. A selection is exact, so all
three give the same values. `signed` is plain torch everywhere, in two passes over memory.
"""

import functools
import importlib
import importlib.util
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from equibit.errors import InputError
from equibit.kernels import _core

DTYPES = (torch.float32, torch.float64)
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

torch.library.define(
    "equibit::select", "(Tensor values, SymInt low, SymInt middle, float[] levels, bool magnitude) -> Tensor"
)

torch.library.define("equibit::values_at", "(Tensor values, SymInt[] ranks, bool magnitude) -> Tensor")
torch.library.define("equibit::signed", "(Tensor values, float level) -> Tensor")


def widen(x: Tensor) -> Tensor:
    """Half types as float32, everything else as it is: ranks and statistics need distinct, precise values."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def select(
    values: Tensor, low: int, middle: int = 0, levels: Sequence[float] = (-1.0, 0.0, 1.0), *, magnitude: bool = False
) -> Tensor:
    """Each row's values by rank: the `low` lowest become levels[0], the next `middle` levels[1], the rest levels[2].

    A row is `values[i].flatten()`, in every memory format. Its order is by value, then by index (stable ascending);
    -0.0 equals 0.0, and NaN has a place of no meaning. Linear time, without sorting.

    Gradient: straight through, dL/dvalues = levels[2] dL/dout.

    Args:
        values: float32 or float64 of shape (rows, ...).
        low: How many values of a row become levels[0].
        middle: How many become levels[1].
        levels: Three numbers, rounded to the type of `values`.
        magnitude: Whether the order is that of |value|.

    Returns:
        Tensor of the shape and type of `values`, and of its memory format where that is contiguous or channels_last.

    Raises:
        InputError: Another type, no row axis, or counts that a row does not have.
    """
    if values.dtype not in DTYPES or values.dim() < 2:
        raise InputError(
            f"cannot select from {values.dtype} values of shape {tuple(values.shape)}. "
            "Allowed: float32 or float64 with rows in dim 0 and at least one more dimension."
        )
    n = values.shape[1:].numel()
    if low < 0 or middle < 0 or low + middle > n:
        raise InputError(f"cannot select {low} and {middle} of {n} values. Allowed: counts from 0, {n} in all.")
    return torch.ops.equibit.select.default(values, low, middle, levels, magnitude)  # type: ignore[no-any-return]


@torch.no_grad()
def quantiles(values: Tensor, shares: Sequence[float], *, magnitude: bool = False) -> Tensor:
    """The quantiles of all values, (len(shares),), linear between the two nearest ranks; in linear time.

    `torch.quantile` sorts, and takes at most 16 million values. No gradient.

    Args:
        values: float32 or float64, of any shape and size but empty.
        shares: Each from 0, the lowest value, to 1, the highest.
        magnitude: Whether of |value|.

    Raises:
        InputError: Another type, no values, or a share out of range.
    """
    if values.dtype not in DTYPES or not values.numel():
        raise InputError(
            f"cannot take quantiles of {values.numel()} {values.dtype} values. "
            "Allowed: at least one, of float32 or float64."
        )
    if not all(0 <= share <= 1 for share in shares):
        raise InputError(f"shares are {tuple(shares)!r}; each must lie in [0, 1].")
    last = values.numel() - 1
    places = [share * last for share in shares]
    ranks = [rank for place in places for rank in (math.floor(place), min(math.floor(place) + 1, last))]
    found: Tensor = torch.ops.equibit.values_at.default(values, ranks, magnitude)
    pairs = zip(found[::2], found[1::2], places, strict=True)
    return torch.stack([torch.lerp(lower, upper, place % 1) for lower, upper, place in pairs])


def signed(values: Tensor, level: float) -> Tensor:
    """`level` where a value is at least 0 (so at 0.0 and -0.0 too), else -`level`; shape and type of `values`.

    Gradient: straight through, dL/dvalues = level dL/dout.
    """
    return torch.ops.equibit.signed.default(values, level)  # type: ignore[no-any-return]


def lowest(rows: Tensor, count: int) -> Tensor:
    """Marks the `count` lowest entries of each row in the stable ascending order, in plain torch.

    The count-th smallest value of a row is its threshold t; entries below t are marked, and of those equal to t the
    first in index order until `count` is reached. Comparisons make -0.0 equal 0.0.

    Args:
        rows: (rows, n), no NaN.
        count: 0 <= count <= n.

    Returns:
        Boolean mask of the shape of `rows` with exactly `count` true entries in each row.
    """
    if count == 0:
        return torch.zeros_like(rows, dtype=torch.bool)
    # On CUDA kthvalue uses one block a row and is slower than a sort (pytorch issue 75599).
    ordered = rows.sort(dim=1).values if rows.is_cuda else None
    threshold = rows.kthvalue(count, dim=1, keepdim=True).values if ordered is None else ordered[:, count - 1, None]
    below, tied = rows < threshold, rows == threshold
    room = count - below.sum(dim=1, keepdim=True)
    return below | (tied & (tied.cumsum(dim=1, dtype=torch.int32) <= room))


def select_plain(values: Tensor, low: int, middle: int, levels: Sequence[float], magnitude: bool) -> Tensor:
    """`select` in plain torch: the reference of the kernels, and what runs where there is none."""
    rows = values.flatten(1)
    order = rows.abs() if magnitude else rows
    out = torch.full_like(rows, levels[2])
    if middle:
        out.masked_fill_(lowest(order, low + middle), levels[1])
    out.masked_fill_(lowest(order, low), levels[0])
    return _empty_like(_dense(values)).copy_(out.view(values.shape))


def _select_cpu(values: Tensor, low: int, middle: int, levels: Sequence[float], magnitude: bool) -> Tensor:
    source = _dense(values.detach())
    out = _empty_like(source)
    if out.numel():
        rows, taps = _stored_rows(source)
        stored_out, _ = _stored_rows(out)
        threads = torch.get_num_threads()
        # By DLPack: `numpy()` would pin the storage for good, and FSDP2 resizes it.
        _core.select(rows, stored_out, low, middle, levels, magnitude, taps, threads)
    return out


def _values_at_cpu(values: Tensor, ranks: Sequence[int], magnitude: bool) -> Tensor:
    out = values.new_empty(len(ranks))
    dense = _dense(values.detach())
    _core.values_at(dense.as_strided((dense.numel(),), (1,)), out, ranks, magnitude)
    return out


def values_at_plain(values: Tensor, ranks: Sequence[int], magnitude: bool) -> Tensor:
    """The values at `ranks` in plain torch."""
    flat = values.flatten()
    return (flat.abs() if magnitude else flat).sort().values[list(ranks)]


def _values_at_fake(values: Tensor, ranks: Sequence[int], magnitude: bool) -> Tensor:
    return values.new_empty(len(ranks))


def _select_cuda(values: Tensor, low: int, middle: int, levels: Sequence[float], magnitude: bool) -> Tensor:
    kernels = _triton_select()
    if kernels is None or not kernels.takes(values):
        return select_plain(values, low, middle, levels, magnitude)
    source = _dense(values)
    out = _empty_like(source)
    rows, taps = _stored_rows(source)
    kernels.select_rows(rows, _stored_rows(out)[0], low, middle, levels, magnitude=magnitude, taps=taps)
    return out


@functools.cache
def _triton_select() -> ModuleType | None:
    return importlib.import_module("equibit.kernels.triton_select") if importlib.util.find_spec("triton") else None


def _signed(values: Tensor, level: float) -> Tensor:
    out = values + 0.0  # which makes 0.0 of -0.0
    return torch.copysign(out.new_tensor(level), out, out=out)


def _signed_fake(values: Tensor, level: float) -> Tensor:
    return torch.empty_like(values)


def _keep_level(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
    ctx.slope = inputs[1]


def _signed_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    return gradient * ctx.slope, None


def _select_fake(values: Tensor, low: int, middle: int, levels: Sequence[float], magnitude: bool) -> Tensor:
    return _empty_like(_dense(values))


def _keep_slope(ctx: Any, inputs: tuple[Tensor, int, int, Sequence[float], bool], output: Tensor) -> None:
    ctx.slope = inputs[3][2]


def _straight_through(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
    return gradient * ctx.slope, None, None, None, None


def _dense(values: Tensor) -> Tensor:
    """`values`, contiguous unless it is channels_last."""
    if values.is_contiguous() or _is_channels_last(values):
        return values
    return values.contiguous()


def _is_channels_last(values: Tensor) -> bool:
    format_ = _CHANNELS_LAST.get(values.dim())
    return format_ is not None and values.is_contiguous(memory_format=format_)


def _empty_like(dense: Tensor) -> Tensor:
    return torch.empty_like(dense, memory_format=torch.preserve_format)


def _stored_rows(dense: Tensor) -> tuple[Tensor, int]:
    """The rows as they lie in memory, (rows, n), and their taps: a row is stored as (taps, n / taps), channels last."""
    if dense.is_contiguous():
        return dense.flatten(1), 1
    channels_last = dense.movedim(1, -1)
    return channels_last.flatten(1), channels_last.shape[1:-1].numel()


torch.library.impl("equibit::select", "CompositeExplicitAutograd", select_plain)
torch.library.impl("equibit::select", "CPU", _select_cpu)
torch.library.impl("equibit::select", "CUDA", _select_cuda)
torch.library.register_fake("equibit::select", _select_fake)
torch.library.register_autograd("equibit::select", _straight_through, setup_context=_keep_slope)
torch.library.impl("equibit::values_at", "CompositeExplicitAutograd", values_at_plain)
torch.library.impl("equibit::values_at", "CPU", _values_at_cpu)
torch.library.register_fake("equibit::values_at", _values_at_fake)
torch.library.impl("equibit::signed", "CompositeExplicitAutograd", _signed)
torch.library.register_fake("equibit::signed", _signed_fake)
torch.library.register_autograd("equibit::signed", _signed_gradient, setup_context=_keep_level)
