"""Bits and latent weights of every binary layer of a network."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equibit.analysis.bits import binary_entropy, bit_entropy, bit_ratio
from equibit.analysis.latents import angle, fit_gauss, fit_laplace, latent_histogram, p_star, quantization_error
from equibit.kernels.torch_ops import widen
from equibit.layers import BinaryLayer, binary_layers
from equibit.methods import Method
from equibit.methods.protocol import effective


@dataclass(frozen=True)
class LayerBits:
    """One binary layer.

    Attributes:
        name: Of the layer.
        kind: Linear, Conv2d, ...
        shape: Of the float layer's weight.
        method: Its key.
        weights: Number of weights.
        filters: Number of filters.
        ratio_mean: Share of +1 of a filter, mean over the filters; `ratio_min` and `ratio_max` are the extremes.
        entropy_mean: Entropy of a filter in bits, mean over the filters; `entropy_min` is the lowest.
        layer_entropy: Entropy in bits of the share of +1 of the whole layer.
        dead_filters: Number of filters without information, see `dead_filters`.
        kept: Share of the weights that are not pruned.
        latent_mean: Mean of the latent weights; `latent_std` is their standard deviation (biased).
        latent_median: The median (the lower of two).
        latent_histogram: Counts as of the function of this name.
        laplace_fit: Mean log likelihood of a latent weight in nats, of the Laplace law that fits the layer best; None
            where all are equal.
        gauss_fit: The same of the Gaussian law.
        p_star: SiMaN's p*, mean over the filters.
        angle: Degrees between latent and binary filter, mean over the filters.
        quantization_error: ||w - w_eff||^2 / ||w||^2 of the layer; None where all latents are 0.
        residual: ||w_relaxed - w_eff|| / ||w_eff||, how far the weights of the training are from the binary ones;
            None for a method that trains with binary ones.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    method: str
    weights: int
    filters: int
    ratio_mean: float
    ratio_min: float
    ratio_max: float
    entropy_mean: float
    entropy_min: float
    layer_entropy: float
    dead_filters: int
    kept: float
    latent_mean: float
    latent_std: float
    latent_median: float
    latent_histogram: tuple[int, ...]
    laplace_fit: float | None
    gauss_fit: float | None
    p_star: float
    angle: float
    quantization_error: float | None
    residual: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@torch.no_grad()
def layer_bits(model: nn.Module) -> tuple[LayerBits, ...]:
    """Every binary layer of a binarised model, in module order; none for a float model.

    Raises:
        InputError: A latent weight holds NaN; the error names the layer.
    """
    return tuple(_describe(layer) for layer in binary_layers(model))


def _describe(layer: BinaryLayer) -> LayerBits:
    filters, method = widen(layer.filters), layer.method
    binary = method.binary(filters)
    weight = effective(binary, *method.factors(filters, binary))
    ratio = bit_ratio(binary)
    entropy = binary_entropy(ratio)
    gauss, laplace = fit_gauss(filters), fit_laplace(filters)
    return LayerBits(
        name=layer.name,
        kind=type(layer.module).__name__.removeprefix("Parametrized"),
        shape=tuple(layer.latent.shape),
        method=method.key,
        weights=binary.numel(),
        filters=len(binary),
        ratio_mean=float(ratio.mean()),
        ratio_min=float(ratio.min()),
        ratio_max=float(ratio.max()),
        entropy_mean=float(entropy.mean()),
        entropy_min=float(entropy.min()),
        layer_entropy=float(bit_entropy(binary, per="layer")),
        dead_filters=int((entropy == 0).sum()),
        kept=int((binary != 0).sum(dtype=torch.int32)) / binary.numel(),
        latent_mean=gauss.location,
        latent_std=gauss.scale,
        latent_median=laplace.location,
        latent_histogram=tuple(latent_histogram(filters).tolist()),
        laplace_fit=_finite(laplace.log_likelihood),
        gauss_fit=_finite(gauss.log_likelihood),
        p_star=float(p_star(filters).mean()),
        angle=float(angle(filters, binary).mean()),
        quantization_error=_finite(quantization_error(filters, weight)),
        residual=_residual(method, filters, weight) if method.relaxes else None,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _residual(method: Method, latent: Tensor, hard: Tensor) -> float:
    """Relative distance of the relaxed weights of the training from the hard ones."""
    was_training = method.training
    relaxed = method.train()(latent)
    method.train(was_training)
    return float((relaxed - hard).norm() / hard.norm().clamp(min=torch.finfo(hard.dtype).tiny))
