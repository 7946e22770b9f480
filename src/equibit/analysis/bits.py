"""Bit ratio, entropy and flip rate of binary weights: pure functions."""

from collections.abc import Mapping

import torch
from torch import Tensor

from equibit.errors import InputError, unknown

_SCOPES = ("filter", "layer")


def bit_ratio(weight: Tensor, per: str = "filter") -> Tensor:
    """Share of +1 among the kept (non-zero) weights; 0 for a filter that keeps none.

    Args:
        weight: Binary weight, exactly -1/+1 (0 where pruned), filters in dim 0.
        per: `filter` or `layer`.

    Returns:
        float64, shape (filters,) or ().

    Raises:
        InputError: Another `per`, or values other than -1, 0, +1 (a latent weight, perhaps).
    """
    rows = _rows(weight, per)
    ratio = (rows > 0).sum(1).double().div((rows != 0).sum(1).clamp(min=1))
    return ratio[0] if per == "layer" else ratio


def bit_entropy(weight: Tensor, per: str = "filter") -> Tensor:
    """Entropy H = -p log2 p - (1 - p) log2 (1 - p) in bits of the share p of +1 (0 log 0 = 0).

    Arguments, shape and errors are those of `bit_ratio`. Source: Equal Bits, arXiv 2112.03406.
    """
    p = bit_ratio(weight, per)
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)) / torch.log(torch.tensor(2.0, dtype=torch.float64))


def flip_rate(before: Tensor | Mapping[str, Tensor], after: Tensor | Mapping[str, Tensor]) -> float:
    """Share of weights that differ between two snapshots, of one layer or of a network.

    For pruned networks every change among -1, 0 and +1 counts.

    Args:
        before: Binary weights, or the dict of them that `equibit.binary_weights` returns.
        after: The same later.

    Raises:
        InputError: The two do not have the same layers and shapes, or are empty.
    """
    first = before if isinstance(before, Mapping) else {"": before}
    second = after if isinstance(after, Mapping) else {"": after}
    shapes = [{name: tuple(w.shape) for name, w in side.items()} for side in (first, second)]
    total = sum(w.numel() for w in first.values())
    if shapes[0] != shapes[1] or total == 0:
        raise InputError(f"flip_rate compares the same weights at two moments; given {shapes[0]} and {shapes[1]}.")
    return float(sum(int((first[name] != second[name]).sum()) for name in first) / total)


def _rows(weight: Tensor, per: str) -> Tensor:
    if per not in _SCOPES:
        raise unknown("scope", per, _SCOPES)
    rows = weight.reshape(1, -1) if per == "layer" else weight.flatten(1)
    if not bool(((rows == 1) | (rows == -1) | (rows == 0)).all()):
        raise InputError("not binary weights: values other than -1, 0 and +1. Take them from equibit.binary_weights.")
    return rows
