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

_FLOAT_BITS = 32

# Protobuf around the tensors of an exported file, measured on digits_net, lenet5, conv2 and resnet18.
_FILE_BYTES, _FUNCTION_BYTES, _CALL_BYTES, _TENSOR_BYTES = 500, 1500, 150, 40


@dataclass(frozen=True)
class LayerSummary:
    """One module that holds parameters.

    `method` is None for a layer that is not binary; `ratio` is the share of +1 of a binary one, `levels` those of its
    method; bytes are those of its tensors, as float32 and as stored in the packed checkpoint and in the ONNX file;
    `macs` are per input; `float_bits` and `input_bits` are those of a weight that is not binary and of an input whose
    sign is not taken, 8 in files that round them.
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
    levels: str = "two"
    float_bits: int = _FLOAT_BITS
    input_bits: int = _FLOAT_BITS

    @property
    def weight_bits(self) -> int:
        """Bits of a stored weight: 1, with pruning 2, 8 or 32."""
        return self.float_bits if self.method is None else 2 if self.levels == "three" else 1

    @property
    def activation_bits(self) -> int:
        """Bits of an input value: 1 behind a sign activation, else 8 or 32."""
        return self.input_bits if self.activation is None else 1

    @property
    def bops(self) -> int:
        """Bit operations per input: MACs x weight bits x activation bits."""
        return self.macs * self.weight_bits * self.activation_bits

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), **{k: getattr(self, k) for k in ("weight_bits", "activation_bits", "bops")}}


@dataclass(frozen=True)
class Precision:
    """All layers with the same bits of weights and activations; sums over them, see `LayerSummary`."""

    weight_bits: int
    activation_bits: int
    layers: int
    parameters: int
    packed_bytes: int
    macs: int
    bops: int


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

    @property
    def bops(self) -> int:
        """Bit operations per input."""
        return sum(layer.bops for layer in self.layers)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The layers that multiply by their precision, the coarsest first."""
        groups: dict[tuple[int, int], list[LayerSummary]] = {}
        for layer in self.layers:
            if layer.macs:
                groups.setdefault((layer.weight_bits, layer.activation_bits), []).append(layer)
        totals = ("parameters", "packed_bytes", "macs", "bops")
        return tuple(
            Precision(*bits, len(group), *(sum(getattr(layer, key) for layer in group) for key in totals))
            for bits, group in sorted(groups.items())
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            **asdict(self),
            "layers": [layer.to_dict() for layer in self.layers],
            "bops": self.bops,
            "precisions": [asdict(precision) for precision in self.precisions],
        }

    def table(self) -> str:
        """A text table with totals below."""
        rows = [
            (
                layer.name or "(model)",
                layer.kind,
                "x".join(map(str, layer.shape)),
                layer.method or ("float" if layer.float_bits == _FLOAT_BITS else f"int{layer.float_bits}"),
                "-" if layer.ratio is None else f"{100 * layer.ratio:.2f} %",
                size(layer.float_bytes),
                size(layer.packed_bytes),
                f"{layer.macs:,}",
            )
            for layer in self.layers
        ]
        columns = ("layer", "kind", "weight", "method", "+1 share", "float32", "packed", "MACs")
        return f"{render(columns, rows)}\n{self._by_precision()}\n{self._totals()}"

    def _by_precision(self) -> str:
        rows = [
            (
                f"{p.weight_bits} x {p.activation_bits}",
                p.layers,
                f"{p.parameters:,}",
                size(p.packed_bytes),
                f"{p.macs:,}",
                f"{p.bops:,}",
            )
            for p in self.precisions
        ]
        return render(("weight x input bits", "layers", "parameters", "packed", "MACs", "bit operations"), rows)

    def _totals(self) -> str:
        share = self.binary_parameters / max(self.parameters, 1)
        macs = self.macs_float + self.macs_binary
        fewer = macs * _FLOAT_BITS**2 / max(self.bops, 1)
        return (
            f"parameters  {self.parameters:,}, {100 * share:.1f} % of them 1-bit\n"
            f"size        float32 {size(self.float_bytes)}, packed {size(self.packed_bytes)} "
            f"({self.float_bytes / max(self.packed_bytes, 1):.1f}x smaller), ONNX {size(self.onnx_bytes)}\n"
            f"MACs        {macs:,} per input, {100 * self.macs_binary / max(macs, 1):.1f} % with 1-bit weights\n"
            f"BOPs        {self.bops:,} bit operations (MACs x bits x bits), {fewer:.1f}x fewer than in float32"
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
        levels=levels,
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
