"""Bits and latent weights of every binary layer of a network."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from equibit.analysis.bits import bit_entropy, bit_ratio
from equibit.layers import BinaryLayer, binary_layers


@dataclass(frozen=True)
class LayerBits:
    """One binary layer.

    Attributes:
        name: Of the layer.
        kind: Linear, Conv2d, ...
        shape: Of the float layer's weight.
        method: Its key.
        weights: Number of weights.
        ratio_mean: Share of +1 of a filter, mean over the filters; `ratio_min` and `ratio_max` are the extremes.
        entropy_mean: Entropy of a filter in bits, mean over the filters; `entropy_min` is the lowest.
        kept: Share of the weights that are not pruned.
        latent_mean: Mean of the latent weights; `latent_std` is their standard deviation (biased).
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    method: str
    weights: int
    ratio_mean: float
    ratio_min: float
    ratio_max: float
    entropy_mean: float
    entropy_min: float
    kept: float
    latent_mean: float
    latent_std: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def layer_bits(model: nn.Module) -> tuple[LayerBits, ...]:
    """Every binary layer of a binarised model, in module order; none for a float model.

    Raises:
        InputError: A latent weight holds NaN; the error names the layer.
    """
    return tuple(_describe(layer) for layer in binary_layers(model))


def _describe(layer: BinaryLayer) -> LayerBits:
    filters = layer.filters.detach()
    binary = layer.method.binary(filters)
    ratio, entropy, latent = bit_ratio(binary), bit_entropy(binary), filters.double()
    return LayerBits(
        name=layer.name,
        kind=type(layer.module).__name__.removeprefix("Parametrized"),
        shape=tuple(layer.latent.shape),
        method=layer.method.key,
        weights=binary.numel(),
        ratio_mean=float(ratio.mean()),
        ratio_min=float(ratio.min()),
        ratio_max=float(ratio.max()),
        entropy_mean=float(entropy.mean()),
        entropy_min=float(entropy.min()),
        kept=float((binary != 0).double().mean()),
        latent_mean=float(latent.mean()),
        latent_std=float(latent.std(correction=0)),
    )
