"""What a forward pass does to shapes: multiply-accumulates of each layer, and which batch norms an export folds.

The pass runs on the meta device: nothing is computed, and no value is looked at.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from equibit.errors import InputError
from equibit.packed import PackedLayer

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


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
        if not any(module.children()) or isinstance(module, (*_LINEAR, PackedLayer)):
            module.register_forward_hook(_record(found, producers, name))
    try:
        with torch.no_grad():
            shadow(torch.empty(tuple(input_shape), dtype=dtype, device="meta"))
    except Exception as error:
        raise InputError(f"an input of shape {tuple(input_shape)} does not go through the model: {error}") from error
    return found


def _record(found: Probe, producers: dict[int, tuple[str, Tensor]], name: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if "parametrizations" in name or not isinstance(output, Tensor):
            return
        found.calls += 1
        if isinstance(module, (*_LINEAR, PackedLayer)):
            weight = module.spec.shape if isinstance(module, PackedLayer) else tuple(module.weight.shape)
            outputs = output.numel() // max(output.shape[0], 1)
            found.macs[name] = found.macs.get(name, 0) + outputs * torch.Size(weight[1:]).numel()
            producers[id(output)] = name, output
        source = producers.get(id(args[0])) if args else None
        # The exporter folds a linear layer's norm only where dim 1 is its output, that is in 2-D outputs.
        if isinstance(module, _NORMS) and source and (output.dim() != 3 or isinstance(module, nn.BatchNorm2d)):
            found.folded.add(name)
            found.biased.add(source[0])

    return hook
