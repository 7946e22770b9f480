"""The summary of an exported file, from the file alone."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto
from onnx.helper import tensor_dtype_to_np_dtype

from equibit import bits
from equibit.analysis import LayerSummary, Summary
from equibit.errors import FileError, FormatError
from equibit.export.graph import Array, attribute, initializers, inner_value, is_layer, slots
from equibit.export.quantized import QuantizedLayer, quantized_layers
from equibit.packed.onnx_ops import Operator
from equibit.runtime import InferenceSession

_FLOAT_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def summarize_onnx(path: str | os.PathLike[str]) -> Summary:
    """Bits, bytes and multiply-accumulates of an exported file.

    Batch norm is folded in the file, so parameters are those that are left; `float_bytes` is the same network with
    float32 weights.

    Raises:
        FileError: No file at `path`.
        FormatError: It is no ONNX file, or its input shapes are not fixed but for the batch.
    """
    model = read(path)
    values = initializers(model)
    rounded = {layer.node.name: layer for layer in quantized_layers(model)}
    nodes = [n for n in model.graph.node if is_layer(n) or n.name in rounded or _weight(n, values) is not None]
    shapes = _shapes(model, [_extent(node) for node in nodes])
    method = next((p.value for p in model.metadata_props if p.key == "equibit.method"), "binary")
    layers = tuple(
        _describe_rounded(rounded[node.name], shapes[_extent(node)])
        if node.name in rounded
        else _describe(node, values, shapes[_extent(node)], method)
        for node in nodes
    )
    steps = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    counted = {name for node in (*nodes, *steps) for name in node.input}
    rest = sum(v.size for name, v in values.items() if name not in counted and v.dtype == np.float32)
    size = Path(path).stat().st_size
    binary = [layer for layer in layers if layer.method]
    return Summary(
        layers=layers,
        parameters=sum(layer.parameters for layer in layers) + rest,
        binary_parameters=sum(int(np.prod(layer.shape)) for layer in binary),
        float_bytes=sum(layer.float_bytes for layer in layers) + 4 * rest,
        packed_bytes=sum(v.nbytes for v in values.values()),
        onnx_bytes=size,
        macs_float=sum(layer.macs for layer in layers if not layer.method),
        macs_binary=sum(layer.macs for layer in binary),
    )


def read(path: str | os.PathLike[str]) -> ModelProto:
    """An ONNX file.

    Raises:
        FileError: No file at `path`.
        FormatError: It is no ONNX file.
    """
    if not Path(path).is_file():
        raise FileError(f"no file at {path}.")
    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise FormatError(f"{path} is not an ONNX file: {error}.") from error
    if not model.graph.node:
        raise FormatError(f"{path} is not an ONNX file: it holds no graph.")
    return model


def _weight(node: NodeProto, values: dict[str, Array]) -> Array | None:
    if node.op_type not in _FLOAT_LAYERS or len(node.input) < 2:
        return None
    return values.get(node.input[1])


def _extent(node: NodeProto) -> str:
    """The tensor at whose every position all weights of the node are used once: for ConvTranspose its input."""
    transposed = "ConvTranspose" in node.op_type
    return str(node.input[0] if transposed else node.output[0])


def _shapes(model: ModelProto, wanted: list[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors of the graph for one input, by running the file once on zeros."""
    probe = ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    names = sorted(set(wanted) - {value.name for value in model.graph.input})
    probe.graph.output.extend(inner_value(model, name) for name in names)
    session = InferenceSession(probe.SerializeToString())
    feeds: dict[str, Any] = {}
    types = {value.name: tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type) for value in model.graph.input}
    for value in session.get_inputs():
        if not all(isinstance(side, int) for side in value.shape[1:]):
            raise FormatError(f"the input {value.name!r} has the shape {value.shape}; all but the batch must be fixed.")
        feeds[value.name] = np.zeros((1, *value.shape[1:]), types[value.name])
    found = dict(zip(names, session.run(names, feeds), strict=True)) if names else {}
    return {name: value.shape for name, value in (feeds | found).items()}


def _describe(node: NodeProto, values: dict[str, Array], extent: tuple[int, ...], method: str) -> LayerSummary:
    inputs = [values[name] for name in node.input if name in values]
    stored, ours = sum(t.nbytes for t in inputs), is_layer(node)
    if ours:
        filters, *rest = attribute(node, "shape")
        shape = (filters, rest[-1], *rest[:-1])
        slope = values[node.input[slots(node)["slope"]]].size if "slope" in slots(node) else 0
        count = int(np.prod(shape)) + filters + slope
    else:
        shape, count = inputs[0].shape, sum(t.size for t in inputs)
    return LayerSummary(
        name=node.name,
        kind=_kind(node) if ours else node.op_type,
        shape=shape,
        parameters=count,
        method=method if ours else None,
        activation="sign" if node.op_type.startswith("Xnor") else None,
        ratio=_ratio(node, values, int(np.prod(shape[1:]))) if ours else None,
        float_bytes=4 * count,
        packed_bytes=stored,
        onnx_bytes=stored,
        macs=_macs(node, shape, extent),
        levels="three" if ours and "mask" in slots(node) else "two",
        input_bits=8 if ours and Operator.of(node.op_type).input == "Int8" else 32,
    )


def _describe_rounded(layer: QuantizedLayer, extent: tuple[int, ...]) -> LayerSummary:
    bias = layer.bias
    count = layer.weight.size + (0 if bias is None else bias.size)
    stored = layer.weight.nbytes + layer.scale.nbytes + (0 if bias is None else bias.nbytes)
    return LayerSummary(
        name=layer.node.name,
        kind=layer.node.op_type,
        shape=layer.weight.shape,
        parameters=count,
        method=None,
        activation=None,
        ratio=None,
        float_bytes=4 * count,
        packed_bytes=stored,
        onnx_bytes=stored,
        macs=_macs(layer.node, layer.weight.shape, extent),
        float_bits=8,
        input_bits=8,
    )


def _macs(node: NodeProto, shape: tuple[int, ...], extent: tuple[int, ...]) -> int:
    positions = np.prod(extent[1:]) // extent[1 if "Conv" in node.op_type else -1]
    return int(positions * np.prod(shape))


def _kind(node: NodeProto) -> str:
    """The operator before anything was fused."""
    return replace(Operator.of(node.op_type), residual="", activation="", words="", sign="").name


def _ratio(node: NodeProto, values: dict[str, Array], fan_in: int) -> float:
    """Share of +1 among the kept weights."""
    position = slots(node)
    signs = bits.unpack_bits(values[node.input[position["bits"]]], fan_in)
    if "mask" not in position:
        return float((signs > 0).mean())
    kept = bits.unpack_bits(values[node.input[position["mask"]]], fan_in)
    return float((signs > 0).sum() / max((kept > 0).sum(), 1))
