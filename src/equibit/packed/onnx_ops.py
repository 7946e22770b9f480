"""The nodes that packed layers become in an ONNX file.

Domain `equibit`, version 1. Operator names are `[Xnor](Binary|Offset|Ternary)(Linear|Conv|ConvTranspose)`: Xnor where
the input is binarised first, and the levels of the weight. Inputs: X, bits, mask (Ternary), scale, offset (Offset),
bias. Attributes: `shape` (filters, kernel..., channels per group: the layout of a row) and `layer`, the layer's name,
which the exporter turns into the node's name; for Conv `strides`, `dilations`, `pads` (all begins, then all ends),
`group` and `perm` (from rows to channels second); for XnorConv `pad_value`, which pads after the sign. ConvTranspose
has those of Conv (`pads` crops the output; `perm` is from (group, filters of a group, kernel..., channels) to
(group, channels, filters of a group, kernel...)) and `output_padding`.
"""

from typing import Any

import torch
from torch import Tensor

from equibit.errors import StateError

DOMAIN, VERSION = "equibit", 1
_LEVELS = {"two": "Binary", "offset": "Offset", "three": "Ternary"}


def operator(levels: str, base: str, *, xnor: bool) -> str:
    """Operator name for a kind of layer; `base` is Linear, Conv or ConvTranspose."""
    return f"{'Xnor' if xnor else ''}{_LEVELS[levels]}{base}"


def emit(name: str, x: Tensor, tensors: list[Tensor | None], attributes: dict[str, Any], shape: list[Any]) -> Tensor:
    """Puts one node of our domain into the graph being exported.

    Raises:
        StateError: The input is not float32, the only type the operators take.
    """
    if x.dtype != torch.float32:
        raise StateError(f"the input of a packed layer is {x.dtype}; export takes float32 models: call model.float().")
    inputs = [x, *(t for t in tensors if t is not None)]
    return torch.onnx.ops.symbolic(f"{DOMAIN}::{name}", inputs, attributes, dtype=x.dtype, shape=shape, version=VERSION)
