"""Bit ratio, entropy, flips and agreement of binary weights: pure functions."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from equibit.errors import InputError, unknown

Weights = Tensor | Mapping[str, Tensor]  # of one layer, or the dict that `equibit.binary_weights` returns

_SCOPES = ("filter", "layer", "network")


def bit_ratio(weight: Weights, per: str = "filter") -> Tensor:
    """Share of +1 among the kept (non-zero) weights; 0 where none is kept.

    Args:
        weight: Binary weights, exactly -1/+1 (0 where pruned), filters in dim 0; of one layer, or of a network.
        per: `filter`, `layer` or `network`.

    Returns:
        float64. Of a layer: shape (filters,), else (). Of a network: (all filters,), (layers,) or ().

    Raises:
        InputError: Another `per`, or values other than -1, 0, +1 (a latent weight, perhaps), or no layer.
    """
    if per not in _SCOPES:
        raise unknown("scope", per, _SCOPES)
    layers = [_rows(w, per) for w in _named(weight).values()]
    positive = torch.cat([_counted(rows > 0) for rows in layers])
    kept = torch.cat([_counted(rows != 0) for rows in layers])
    if per == "network":
        positive, kept = positive.sum(0, keepdim=True), kept.sum(0, keepdim=True)
    ratio = positive.double().div(kept.clamp(min=1))
    return ratio[0] if per == "network" or (per == "layer" and isinstance(weight, Tensor)) else ratio


def bit_entropy(weight: Weights, per: str = "filter") -> Tensor:
    """Entropy in bits of the share of +1, see `binary_entropy`.

    Arguments, shape and errors are those of `bit_ratio`. Source: Equal Bits, arXiv 2112.03406.
    """
    return binary_entropy(bit_ratio(weight, per))


def binary_entropy(p: Tensor) -> Tensor:
    """H = -p log2 p - (1 - p) log2 (1 - p) in bits, with 0 log 0 = 0; of the shape and dtype of p."""
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)) / torch.log(torch.tensor(2.0, dtype=p.dtype))


def dead_filters(weight: Tensor) -> Tensor:
    """Which filters carry no information: they keep no weight, or all weights they keep are equal.

    One that keeps none has a constant output. One with a share of +1 of 0 or 1 can only add up its inputs: its
    entropy is 0. What they have learned is in scale and bias alone.

    Args:
        weight: Binary weights of a layer, filters in dim 0.

    Returns:
        bool, shape (filters,).

    Raises:
        InputError: Values other than -1, 0, +1.
    """
    ratio = bit_ratio(weight)
    return (ratio == 0) | (ratio == 1)


def flip_rate(before: Weights, after: Weights) -> float:
    """Share of weights that differ between two snapshots, of one layer or of a network.

    For pruned networks every change among -1, 0 and +1 counts. Snapshots may be a step or an epoch apart.

    Args:
        before: Binary weights, or the dict of them that `equibit.binary_weights` returns.
        after: The same later.

    Raises:
        InputError: The two do not have the same layers and shapes, or are empty.
    """
    first, second = _same_layers("flip_rate", before, after)
    changed = sum(int((first[name] != second[name]).sum()) for name in first)
    return float(changed / sum(w.numel() for w in first.values()))


def never_flipped(snapshots: Sequence[Weights]) -> float:
    """Share of weights with the same value (-1, 0 or +1) in all snapshots, of one layer or of a network.

    A weight that flips and flips back between two snapshots is not seen to flip.

    Args:
        snapshots: Binary weights at moments of a training, one or more.

    Raises:
        InputError: They do not have the same layers and shapes, or are empty.
    """
    if not snapshots:
        raise InputError("never_flipped was given no snapshot; it takes one or more.")
    start = _named(snapshots[0])
    still = {name: torch.ones_like(w, dtype=torch.bool) for name, w in start.items()}
    for snapshot in snapshots:
        first, now = _same_layers("never_flipped", start, snapshot)
        still = {name: flags & (first[name] == now[name]) for name, flags in still.items()}
    return float(sum(int(flags.sum()) for flags in still.values()) / sum(flags.numel() for flags in still.values()))


def sign_agreement(binary: Weights, reference: Weights) -> float:
    """Share of the kept binary weights that have the sign of a real-valued weight; 0 where none is kept.

    Args:
        binary: Binary weights of one layer or of a network, exactly -1/+1 (0 where pruned).
        reference: Real weights of the same layers and shapes, such as those of a float twin or the latents; the sign
            of 0 is +1.

    Raises:
        InputError: The two do not have the same layers and shapes, or are empty, or the first is not binary.
    """
    first, second = _same_layers("sign_agreement", binary, reference)
    same = kept = 0
    for name, weight in first.items():
        rows, signs = _rows(weight, "layer"), _rows_of(second[name], "layer") >= 0
        same += int((((rows > 0) == signs) & (rows != 0)).sum())
        kept += int((rows != 0).sum())
    return same / max(kept, 1)


def _named(weights: Weights) -> Mapping[str, Tensor]:
    named = weights if isinstance(weights, Mapping) else {"": weights}
    if not named:
        raise InputError("there is no layer: the dict of binary weights is empty.")
    return named


def _same_layers(function: str, one: Weights, other: Weights) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    first = one if isinstance(one, Mapping) else {"": one}
    second = other if isinstance(other, Mapping) else {"": other}
    shapes = [{name: tuple(w.shape) for name, w in side.items()} for side in (first, second)]
    if shapes[0] != shapes[1] or not any(w.numel() for w in first.values()):
        raise InputError(f"{function} compares the same weights at two moments; given {shapes[0]} and {shapes[1]}.")
    return first, second


def _rows(weight: Tensor, per: str) -> Tensor:
    rows = _rows_of(weight, per)
    if not bool(((rows == 1) | (rows == -1) | (rows == 0)).all()):
        raise InputError("not binary weights: values other than -1, 0 and +1. Take them from equibit.binary_weights.")
    return rows


def _counted(flags: Tensor) -> Tensor:
    """True entries of each row, int64; summed as int32, which takes a quarter of the time on a CPU."""
    return flags.sum(1, dtype=torch.int32).long()


def _rows_of(weight: Tensor, per: str) -> Tensor:
    """(filters, n), or (1, all) where filters do not matter."""
    return weight.flatten(1) if per == "filter" else weight.reshape(1, -1)
