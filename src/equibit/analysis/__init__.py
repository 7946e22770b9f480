"""Pure functions from weights to numbers, and the summary of a model."""

from equibit.analysis.bits import bit_entropy, bit_ratio, flip_rate
from equibit.analysis.layerwise import LayerBits, layer_bits
from equibit.analysis.summary import LayerSummary, Summary, summary

__all__ = [
    "LayerBits",
    "LayerSummary",
    "Summary",
    "bit_entropy",
    "bit_ratio",
    "flip_rate",
    "layer_bits",
    "summary",
]
