"""Size and work of a model: what its packed and exported files will measure."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from equibit import bits
from equibit.analysis.bits import bit_ratio
from equibit.analysis.probe import Probe, probe
from equibit.layers import BinaryLayer, binary_weight_of
from equibit.packed import PackedLayer
from equibit.tables import render, size

# Protobuf around the tensors of an exported file, measured on digits_net, lenet5, conv2 and resnet18.
_FILE_BYTES, _FUNCTION_BYTES, _CALL_BYTES, _TENSOR_BYTES = 500, 1500, 150, 40


@dataclass(frozen=True)
class LayerSummary:
    """One module that holds parameters.

    `method` is None for a float layer; `ratio` is the share of +1 of a binary one; bytes are those of its tensors,
    as float32 and as stored in the packed checkpoint and in the ONNX file; `macs` are per input.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    method: str | None
    activation: str | None
    ratio: float | None
    float_bytes: int
    packed_bytes: int
    onnx_bytes: int
    macs: int


@dataclass(frozen=True)
class Summary:
    """Totals and layers. MACs are per input; `onnx_bytes` is the size of the exported file (2 % or 16 KiB)."""

    layers: tuple[LayerSummary, ...]
    parameters: int
    binary_parameters: int
    float_bytes: int
    packed_bytes: int
    onnx_bytes: int
    macs_float: int
    macs_binary: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def table(self) -> str:
        """A text table with totals below."""
        rows = [
            (
                layer.name or "(model)",
                layer.kind,
                "x".join(map(str, layer.shape)),
                layer.method or "float",
                "-" if layer.ratio is None else f"{100 * layer.ratio:.2f} %",
                size(layer.float_bytes),
                size(layer.packed_bytes),
                f"{layer.macs:,}",
            )
            for layer in self.layers
        ]
        columns = ("layer", "kind", "weight", "method", "+1 share", "float32", "packed", "MACs")
        return f"{render(columns, rows)}\n{self._totals()}"

    def _totals(self) -> str:
        share = self.binary_parameters / max(self.parameters, 1)
        macs = self.macs_float + self.macs_binary
        return (
            f"parameters  {self.parameters:,}, {100 * share:.1f} % of them 1-bit\n"
            f"size        float32 {size(self.float_bytes)}, packed {size(self.packed_bytes)} "
            f"({self.float_bytes / max(self.packed_bytes, 1):.1f}x smaller), ONNX {size(self.onnx_bytes)}\n"
            f"MACs        {macs:,} per input, {100 * self.macs_binary / max(macs, 1):.1f} % with 1-bit weights"
        )


def summary(model: nn.Module, input_shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Summary:
    """Bits, bytes and multiply-accumulates of a float, binarised or packed model.

    Args:
        model: The model; it is not changed, and nothing is computed on values but the share of +1.
        input_shape: Shape of an input, batch in dim 0.
        dtype: Type of the input; torch.long for a network that starts with an embedding.

    Raises:
        InputError: An input of this shape does not go through the model; a latent weight holds NaN.
    """
    found = probe(model, input_shape, dtype)
    layers = tuple(_describe(name, module, found) for name, module in _holders(model))
    binary = [layer for layer in layers if layer.method]
    kinds = {(layer.kind == "Linear", layer.activation) for layer in binary}
    overhead = _FILE_BYTES + _FUNCTION_BYTES * len(kinds) + _CALL_BYTES * found.calls + _TENSOR_BYTES * 2 * len(layers)
    return Summary(
        layers=layers,
        parameters=sum(layer.parameters for layer in layers),
        binary_parameters=sum(torch.Size(layer.shape).numel() for layer in binary),
        float_bytes=sum(layer.float_bytes for layer in layers),
        packed_bytes=sum(layer.packed_bytes for layer in layers),
        onnx_bytes=overhead + sum(layer.onnx_bytes for layer in layers),
        macs_float=sum(layer.macs for layer in layers if not layer.method),
        macs_binary=sum(layer.macs for layer in binary),
    )


def _holders(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules with tensors of their own; a parametrised layer stands for its parametrisation."""
    for name, module in model.named_modules():
        inside = "parametrizations" in name.split(".")
        if not inside and (binary_weight_of(module) or module._parameters or module._buffers):
            yield name, module


def _describe(name: str, module: nn.Module, found: Probe) -> LayerSummary:
    macs, kind = found.macs.get(name, 0), type(module).__name__.removeprefix("Parametrized")
    parametrized = binary_weight_of(module)
    if isinstance(module, PackedLayer):
        spec = module.spec
        binary, filters, method, activation = module.binary(), spec.shape[0], spec.method, spec.activation
        kind, levels, bias = spec.kind, spec.levels, module.bias
    elif parametrized is not None:
        layer = BinaryLayer(name, module, parametrized)
        binary, filters = layer.binary(), len(layer.filters)
        method, levels = layer.method.key, layer.method.levels
        activation = None if layer.activation is None else layer.activation.key
        bias = module.bias  # type: ignore[assignment]
    else:
        return _describe_float(name, module, found, macs, kind)
    weights = binary.numel()
    stored = filters * bits.row_bytes(weights // filters) * (2 if levels == "three" else 1)
    stored += 4 * filters * (2 if levels == "offset" else 1)
    biases = 0 if bias is None else filters
    return LayerSummary(
        name=name,
        kind=kind,
        shape=tuple(binary.shape),
        parameters=weights + biases,
        method=method,
        activation=activation,
        ratio=float(bit_ratio(binary, per="layer")),
        float_bytes=4 * (weights + biases),
        packed_bytes=stored + 4 * biases,
        onnx_bytes=stored + 4 * filters,  # the exported node always has a bias, where batch norm folds
        macs=macs,
    )


def _describe_float(name: str, module: nn.Module, found: Probe, macs: int, kind: str) -> LayerSummary:
    parameters = [p for p in module._parameters.values() if p is not None]
    tensors = parameters + [b for b in module._buffers.values() if b is not None]
    floats = sum(t.numel() for t in tensors if t.is_floating_point())
    weight = module._parameters.get("weight")
    shape = tuple(weight.shape) if weight is not None else ()
    if name in found.folded:
        onnx = 0
    else:  # a folded batch norm gives its layer a bias
        onnx = 4 * floats + (4 * shape[0] if name in found.biased and module._parameters.get("bias") is None else 0)
    return LayerSummary(
        name=name,
        kind=kind,
        shape=shape,
        parameters=sum(p.numel() for p in parameters),
        method=None,
        activation=None,
        ratio=None,
        float_bytes=4 * floats,
        packed_bytes=sum(t.numel() * t.element_size() for t in tensors),
        onnx_bytes=onnx,
        macs=macs,
    )
