"""What a forward pass does to shapes: multiply-accumulates of each layer, and which batch norms an export folds.

The pass runs on the meta device: nothing is computed, and no value is looked at.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from equibit.errors import InputError
from equibit.layers import LAYER_TYPES, TRANSPOSED
from equibit.packed import PackedConvTranspose, PackedLayer

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass
class Probe:
    """Findings by module name: `macs` per input, `folded` batch norms, `biased` layers that take one up, `calls`."""

    macs: dict[str, int] = field(default_factory=dict)
    folded: set[str] = field(default_factory=set)
    biased: set[str] = field(default_factory=set)
    calls: int = 0


def probe(model: nn.Module, input_shape: Sequence[int], dtype: torch.dtype) -> Probe:
    """Runs a shape-only copy of `model`.

    Args:
        model: Any model; it is not changed.
        input_shape: Shape of one input with the batch in dim 0.
        dtype: Type of the input.

    Raises:
        InputError: An input of this shape does not go through the model.
    """
    shadow = copy.deepcopy(model).eval().to("meta")
    found = Probe()
    producers: dict[int, tuple[str, Tensor]] = {}  # holds the tensors, so that ids stay unique
    for name, module in shadow.named_modules():
        if not any(module.children()) or isinstance(module, (*LAYER_TYPES, PackedLayer)):
            module.register_forward_hook(_record(found, producers, name), with_kwargs=True)
    try:
        with torch.no_grad():
            shadow(torch.empty(tuple(input_shape), dtype=dtype, device="meta"))
    except Exception as error:
        raise InputError(
            f"an input of shape {tuple(input_shape)} does not go through the model, run on shapes alone: {error}"
        ) from error
    return found


def _record(found: Probe, producers: dict[int, tuple[str, Tensor]], name: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if "parametrizations" in name or not isinstance(output, Tensor):
            return
        found.calls += 1
        if isinstance(module, (*LAYER_TYPES, PackedLayer)):
            found.macs[name] = found.macs.get(name, 0) + _macs(module, args[0] if args else kwargs["input"], output)
            producers[id(output)] = name, output
        source = producers.get(id(args[0])) if args else None
        # The exporter folds a linear layer's norm only where dim 1 is its output, that is in 2-D outputs.
        if isinstance(module, _NORMS) and source and (output.dim() != 3 or isinstance(module, nn.BatchNorm2d)):
            found.folded.add(name)
            found.biased.add(source[0])

    return hook


def _macs(layer: nn.Module, x: Tensor, output: Tensor) -> int:
    """Multiply-accumulates per input: every weight is used once at each position of the output.

    A transposed convolution uses it once at each position of its input; the products that its padding crops are
    counted, as are those with the zeros that a convolution pads with.
    """
    shape = layer.spec.shape if isinstance(layer, PackedLayer) else cast(Tensor, layer.weight).shape
    transposed = isinstance(layer, (*TRANSPOSED, PackedConvTranspose))
    values = x if transposed else output
    channels = values.shape[-1 if len(shape) == 2 else 1]
    positions = values.numel() // max(values.shape[0] * channels, 1)
    return positions * torch.Size(shape).numel()
