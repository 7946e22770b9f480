"""How much the loss depends on the bits of each layer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equibit.errors import InputError
from equibit.layers import BinaryLayer, binary_layers, filters_first
from equibit.methods.protocol import effective, per_filter


@dataclass(frozen=True)
class Sensitivity:
    """What one layer does to a loss when its weights are changed and all others stay.

    Attributes:
        name: Of the layer.
        latent_change: Loss with the layer's latent weights, each filter scaled to the norm of its effective weight,
            minus the loss as it is: below 0 where the layer loses by being binary. Where the binary weight does not
            follow the sign of the latent (SiMaN, Multi-Prize Tickets), the latent is another weight, not a finer one.
        flip_change: Loss with some of the layer's bits flipped, drawn at random, minus the loss as it is; mean over
            the draws.
    """

    name: str
    latent_change: float
    flip_change: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@torch.no_grad()
def sensitivity(
    model: nn.Module, loss: Callable[[], float], *, share: float = 0.05, draws: int = 3, seed: int = 0
) -> tuple[Sensitivity, ...]:
    """Changes the weights of one binary layer after the other, and puts them back.

    Args:
        model: A binarised model; it computes in eval mode, and its mode is restored.
        loss: Computes the model's loss, always on the same images.
        share: Of the kept weights of a layer whose sign is flipped; at least one weight is.
        draws: How often they are drawn.
        seed: Of the draws.

    Raises:
        InputError: `share` is not in (0, 1], or there is no draw.
    """
    if not 0 < share <= 1 or draws < 1:
        raise InputError(f"share is {share!r} and draws is {draws!r}; share must be in (0, 1] and draws at least 1.")
    generator = torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()
    try:
        base = loss()
        return tuple(_of_layer(layer, loss, base, share, draws, generator) for layer in binary_layers(model))
    finally:
        model.train(was_training)


def _of_layer(
    layer: BinaryLayer, loss: Callable[[], float], base: float, share: float, draws: int, generator: torch.Generator
) -> Sensitivity:
    latent = layer.filters
    scale, offset, binary = layer.method.scale(latent), layer.method.offset(latent), layer.method.binary(latent)
    now = effective(binary, scale, offset)
    norms = [w.flatten(1).norm(dim=1) for w in (now, latent)]
    changed = [per_filter(norms[0] / norms[1].clamp(min=torch.finfo(latent.dtype).tiny), latent) * latent]
    changed += [effective(_flipped(binary, share, generator), scale, offset) for _ in range(draws)]
    found = []
    for weight in changed:
        with _weight(layer, filters_first(weight.to(latent.dtype), layer.parametrization.groups)):
            found.append(loss() - base)
    return Sensitivity(layer.name, found[0], sum(found[1:]) / draws)


def _flipped(binary: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A copy with the sign of some non-zero weights changed; exactly that share of them, at least one."""
    flat = binary.flatten().clone()
    kept = flat.nonzero().squeeze(1)
    chosen = torch.randperm(len(kept), generator=generator)[: max(1, round(share * len(kept)))]
    flat[kept[chosen.to(kept.device)]] *= -1
    return flat.view(binary.shape)


@contextmanager
def _weight(layer: BinaryLayer, weight: Tensor) -> Iterator[None]:
    """Within, the layer computes with `weight`."""
    hook = layer.parametrization.register_forward_hook(lambda module, args, output: weight)
    try:
        yield
    finally:
        hook.remove()
