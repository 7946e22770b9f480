"""The nodes that packed layers become in an ONNX file.

Domain `equibit`, version 1. An operator's name says what it computes:

    [Xnor[Words]|Int8](Binary|Offset|Ternary)(Linear|Conv|ConvTranspose)[Add][Relu|PRelu|Clip|Sign]

What is taken from the input: its signs (Xnor), its values rounded to 8 bits (Int8), or the values themselves. Then the
levels of the weight and the kind of layer, and what the exporter fused behind it: the sum with a residual, an
activation. Every combination has its own name, because a function in a file has fixed inputs.

Between two layers of signs there may be signs alone. Sign says that a layer gives the signs of its output, Words that
it takes signs; both are words, uint64: bit c % 64 of element (n, c // 64, places...) is set where channel c is +1, bits
without a channel are clear. The scale of a Sign layer is -1, 0 or 1 and its bias whole: integer thresholds, which give
the same bits wherever the file runs. Words and Sign are for Xnor, Linear (of 2-D inputs) and Conv of one group; Sign
is for Binary and Ternary.

Inputs, in this order: X, bits, mask (Ternary), scale, offset (Offset), bias, slope (PRelu), residual (Add). All but X
and residual are constants; residual has the shape of the output, slope broadcasts to it with one value per filter or
one in all.

Attributes: `shape` (filters, kernel..., channels per group: the layout of a row) and `layer`, the layer's name, which
the exporter turns into the node's name; for Conv `strides`, `dilations`, `pads` (all begins, then all ends), `group`
and `perm` (from rows to channels second); for XnorConv `pad_value`, which pads after the sign. ConvTranspose has those
of Conv (`pads` crops the output; `perm` is from (group, filters of a group, kernel..., channels) to (group, channels,
filters of a group, kernel...)) and `output_padding`. Int8 has `input_scale`: an input x counts as
clip(round(x / input_scale), -127, 127) * input_scale, halves rounded to even. Clip has `low` and `high`.

Beside the layers there are two poolings. `WordsMaxPool`: X, flips -> Y, all words, with the attributes `kernel_shape`,
`strides` and `pads` of ONNX's MaxPool: the largest sign of each window, or the smallest of the channels whose bits are
set in `flips`, which has one word for each of X's. And `AveragePool`: X -> Y with the attributes `kernel_shape`,
`strides` and `ceil_mode` of ONNX's own, without padding; a window that reaches over the end is averaged over what there
is of it. The exporter writes it behind a layer of ours, where onnxruntime's own would take longer than a binary
convolution.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equibit.errors import StateError

DOMAIN, VERSION = "equibit", 1
POOL = "AveragePool"
WORDS_POOL = "WordsMaxPool"
WORDS_POOL_ATTRIBUTES = ("kernel_shape", "strides", "pads")
POOL_ATTRIBUTES = ("kernel_shape", "strides", "ceil_mode")
_LEVELS = {"two": "Binary", "offset": "Offset", "three": "Ternary"}
_NAME = re.compile(
    "(?P<input>Xnor|Int8|)(?P<words>Words|)(?P<levels>Binary|Offset|Ternary)(?P<base>Linear|ConvTranspose|Conv)"
    "(?P<residual>Add|)(?P<activation>Relu|PRelu|Clip|)(?P<sign>Sign|)"
)


@dataclass(frozen=True)
class Operator:
    """What the name of an operator says, part by part; the optional parts may be empty."""

    input: str
    levels: str
    base: str
    residual: str = ""
    activation: str = ""
    words: str = ""
    sign: str = ""

    @classmethod
    def of(cls, name: str) -> "Operator":
        """The operator of that name, one of this domain."""
        found = _NAME.fullmatch(name)
        assert found is not None, name
        return cls(**found.groupdict())

    @property
    def name(self) -> str:
        """The name in the file."""
        return f"{self.input}{self.words}{self.levels}{self.base}{self.residual}{self.activation}{self.sign}"

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs in their order."""
        mask = ["mask"] if self.levels == "Ternary" else []
        offset = ["offset"] if self.levels == "Offset" else []
        slope = ["slope"] if self.activation == "PRelu" else []
        residual = ["residual"] if self.residual else []
        return ["X", "bits", *mask, "scale", *offset, "bias", *slope, *residual]

    @property
    def attributes(self) -> list[str]:
        """Names of the attributes; `layer` is none of them, as it becomes the name of the node."""
        names = ["shape"]
        if self.base != "Linear":
            names += ["perm", "strides", "dilations", "pads", "group"]
        if self.base == "ConvTranspose":
            names.append("output_padding")
        elif self.base == "Conv" and self.input == "Xnor":
            names.append("pad_value")
        names += ["input_scale"] if self.input == "Int8" else []
        return names + (["low", "high"] if self.activation == "Clip" else [])


def operator(levels: str, base: str, *, xnor: bool) -> str:
    """Operator name of a layer as its module emits it; `base` is Linear, Conv or ConvTranspose."""
    return Operator("Xnor" if xnor else "", _LEVELS[levels], base).name


def emit(name: str, x: Tensor, tensors: list[Tensor | None], attributes: dict[str, Any], shape: list[Any]) -> Tensor:
    """Puts one node of our domain into the graph being exported.

    Raises:
        StateError: The input is not float32, the only type the operators take.
    """
    if x.dtype != torch.float32:
        raise StateError(f"the input of a packed layer is {x.dtype}; export takes float32 models: call model.float().")
    inputs = [x, *(t for t in tensors if t is not None)]
    return torch.onnx.ops.symbolic(f"{DOMAIN}::{name}", inputs, attributes, dtype=x.dtype, shape=shape, version=VERSION)
