"""What every binary layer of a network is like after an epoch: the lines of `layers.jsonl`."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equibit import analysis
from equibit.analysis import InputSigns, LayerBits
from equibit.layers import weight_name

PROBE_IMAGES = 256  # the first of the test set, on which the signs of activations are counted
_DIGITS = 6


def record(
    model: nn.Module,
    *,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    before_step: Mapping[str, Tensor],
    flipped: Mapping[str, Tensor],
    batches: Iterable[Tensor],
) -> dict[str, dict[str, Any]]:
    """One entry per binary layer, by its name; none for a float network.

    `bit_ratio` and `bit_entropy` are means over the filters, as are `p_star` and `angle`; all keys from `layer_entropy`
    to `residual` are explained at `equibit.analysis.LayerBits`. Then:

    - `weights`, `filters`: how many the layer has, for means over layers;
    - `flip_rate`: share of weights that differ from the epoch before (the start, for the first epoch);
    - `step_flip_rate`: share that the epoch's last step changed;
    - `never_flipped`: share that had its initial value at the end of every epoch so far;
    - `activation_entropy`: entropy in bits of the signs of an input channel, mean over the channels, on the first 256
      test images; `constant_inputs`: channels whose sign never changes there. See `equibit.analysis.input_signs`.

    Numbers have six significant digits; what is not defined, or not known after resuming a run that did not record it,
    is None.

    Args:
        model: The network after the epoch.
        before: Binary weights at the end of the epoch before, by state-dict name.
        after: The same now.
        before_step: The same before the epoch's last step; empty where there was no such moment.
        flipped: Bool by state-dict name: what has changed since the training started; empty where it is not known.
        batches: Normalised images (b, channels, height, width).
    """
    layers = analysis.layer_bits(model)
    inputs = analysis.input_signs(model, batches) if layers else {}
    return {
        layer.name: _rounded(_bits(layer) | _flips(layer, before, after, before_step, flipped) | _inputs(layer, inputs))
        for layer in layers
    }


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bool by state-dict name: which weights differ."""
    return {name: before[name] != after[name] for name in after}


def _bits(layer: LayerBits) -> dict[str, Any]:
    return {
        "weights": layer.weights,
        "filters": layer.filters,
        "bit_ratio": layer.ratio_mean,
        "bit_entropy": layer.entropy_mean,
        "layer_entropy": layer.layer_entropy,
        "dead_filters": layer.dead_filters,
        "kept": layer.kept,
        "latent_mean": layer.latent_mean,
        "latent_std": layer.latent_std,
        "latent_median": layer.latent_median,
        "latent_histogram": list(layer.latent_histogram),
        "laplace_fit": layer.laplace_fit,
        "gauss_fit": layer.gauss_fit,
        "p_star": layer.p_star,
        "angle": layer.angle,
        "quantization_error": layer.quantization_error,
        "residual": layer.residual,
    }


def _flips(
    layer: LayerBits,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    before_step: Mapping[str, Tensor],
    flipped: Mapping[str, Tensor],
) -> dict[str, float | None]:
    name = weight_name(layer.name)
    return {
        "flip_rate": analysis.flip_rate(before[name], after[name]),
        "step_flip_rate": analysis.flip_rate(before_step[name], after[name]) if name in before_step else None,
        "never_flipped": 1 - _share(flipped[name]) if name in flipped else None,
    }


def _share(flags: Tensor) -> float:
    return int(flags.sum(dtype=torch.int64)) / flags.numel()


def _inputs(layer: LayerBits, inputs: Mapping[str, InputSigns]) -> dict[str, float | int | None]:
    found = inputs.get(layer.name)
    return {
        "activation_entropy": None if found is None else found.entropy,
        "constant_inputs": None if found is None else found.constant,
    }


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: float(f"{v:.{_DIGITS}g}") if isinstance(v, float) else v for key, v in values.items()}
