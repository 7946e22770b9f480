"""Pure functions from weights to numbers, and the summary of a model."""

from equibit.analysis.ablation import Sensitivity, sensitivity
from equibit.analysis.bits import (
    binary_entropy,
    bit_entropy,
    bit_ratio,
    dead_filters,
    flip_rate,
    never_flipped,
    sign_agreement,
)
from equibit.analysis.inputs import InputSigns, input_signs
from equibit.analysis.latents import (
    Fit,
    angle,
    fit_gauss,
    fit_laplace,
    latent_histogram,
    p_star,
    quantization_error,
)
from equibit.analysis.layerwise import LayerBits, layer_bits
from equibit.analysis.summary import LayerSummary, Precision, Summary, summary

__all__ = [
    "Fit",
    "InputSigns",
    "LayerBits",
    "LayerSummary",
    "Precision",
    "Sensitivity",
    "Summary",
    "angle",
    "binary_entropy",
    "bit_entropy",
    "bit_ratio",
    "dead_filters",
    "fit_gauss",
    "fit_laplace",
    "flip_rate",
    "input_signs",
    "latent_histogram",
    "layer_bits",
    "never_flipped",
    "p_star",
    "quantization_error",
    "sensitivity",
    "sign_agreement",
    "summary",
]
