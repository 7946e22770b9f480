"""The signs of what goes into the binary layers of a network."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equibit.analysis.bits import binary_entropy
from equibit.layers import BinaryLayer, binary_layers


@dataclass(frozen=True)
class InputSigns:
    """The input of one binary layer.

    Attributes:
        channels: Its channels (features of a Linear).
        entropy: Entropy in bits of a channel's share p of +1 over batch and space, mean over the channels.
        constant: Channels with p of 0 or 1: their sign tells nothing.
    """

    channels: int
    entropy: float
    constant: int


@torch.no_grad()
def input_signs(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, InputSigns]:
    """Entropy of the signs of every binary layer's input, in eval mode; the model's mode is restored.

    The signs of a 1W1A layer are those that it computes with (its activation's, before padding). Those of a layer with
    real inputs say where they are above 0: behind a ReLU p is then the share of active units, the sign of what went
    into the ReLU. Source: Equal Bits, arXiv 2112.03406.

    Args:
        model: A binarised model; a float one has no binary layer.
        batches: Inputs of the model.

    Returns:
        By layer name; a layer that was not called is left out.
    """
    counts: dict[str, _Counts] = {}
    hooks = [_watch(layer, counts) for layer in binary_layers(model)]
    was_training = model.training
    model.eval()
    try:
        for batch in batches if hooks else ():
            model(batch)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return {name: _describe(found) for name, found in counts.items()}


@dataclass
class _Counts:
    positive: Tensor  # (channels,)
    values: int = 0  # of one channel


def _watch(layer: BinaryLayer, counts: dict[str, _Counts]) -> Any:
    """Counts positive values per channel whenever the layer, or the sign activation before it, is called."""
    activation = layer.activation
    above: Callable[[Tensor], Tensor]
    if activation is None:
        watched, above = layer.module, lambda x: x > 0
    else:
        watched, above = activation, lambda x: activation.argument(x) >= 0
    axes = len(getattr(layer.module, "kernel_size", ()))  # dimensions after the channels

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        signs = above(args[0] if args else kwargs["input"])
        rows = signs.movedim(signs.dim() - 1 - axes, 0).flatten(1)
        found = counts.setdefault(layer.name, _Counts(rows.new_zeros(len(rows), dtype=torch.int64)))
        found.positive += rows.sum(1)
        found.values += rows.shape[1]

    return watched.register_forward_pre_hook(hook, with_kwargs=True)


def _describe(found: _Counts) -> InputSigns:
    p = found.positive.double() / max(found.values, 1)
    return InputSigns(len(p), float(binary_entropy(p).mean()), int(((p == 0) | (p == 1)).sum()))
