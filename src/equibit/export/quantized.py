"""Float layers in 8 bits as they stand in a file: standard QuantizeLinear and DequantizeLinear around a standard layer.

    X -> QuantizeLinear [-> SpaceToDepth] -> DequantizeLinear -> Conv|Gemm|MatMul [-> Relu -> QuantizeLinear ...]

with the weight and the bias behind a DequantizeLinear too. onnxruntime fuses this to QLinearConv, QGemm and
MatMulIntegerToFloat. Input and output of a Conv are uint8, weights int8 in -63 .. 63 with a scale per filter, sums
int32.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from equibit.export.graph import Array, attribute, initializers, only_reader

KINDS = ("Conv", "Gemm", "MatMul")
# Of a weight. On x86 CPUs without VNNI onnxruntime adds two products of uint8 and int8 in 16 bits, where larger
# weights would saturate: 2 x 255 x 63 < 2^15. So the file computes the same on every CPU.
_LARGEST = 63
_LARGEST_BIAS = 2**30  # in units of the sum, of which int32 then holds as much again
_SMALLEST_SCALE = 2.0**-60  # of a filter of zeros; times the scale of an input it is still a normal float32


@dataclass(frozen=True)
class Grid:
    """What uint8 values q stand for: (q - zero) * scale."""

    scale: np.float32
    zero: np.uint8

    @classmethod
    def over(cls, low: float, high: float) -> "Grid":
        """The finest grid that reaches from `low` to `high` and holds 0 exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = np.float32((high - low) / 255) or np.float32(1)
        return cls(scale, np.uint8(round(-low / scale)))

    def values(self, rounded: Array) -> Array:
        """Of uint8 values what they stand for, in float64."""
        return (rounded.astype(np.float64) - self.zero) * np.float64(self.scale)

    def clip(self, values: Array) -> Array:
        """The values, those beyond the ends of the grid moved there."""
        low, high = self.values(np.array([0, 255], np.uint8))
        return values.clip(low, high)


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer in 8 bits in a file.

    Attributes:
        node: The Conv, Gemm or MatMul; its name is the layer's, with `#2` at the second call.
        input: Name of the uint8 input, and `input_grid` what its values stand for.
        weight: int8, filters first; `scale` is one float32 per filter.
        bias: int32 per filter in units of both scales; None without.
        output: Name of the uint8 output, and `output_grid` what its values stand for. Gemm and MatMul have None: there
            `output` is float.
        relu: Whether the output is behind a ReLU.
        reader: Kind of the one node that reads the float output of the layer itself; empty where there are several.
    """

    node: NodeProto
    input: str
    input_grid: Grid
    weight: Array
    scale: Array
    bias: Array | None
    output: str
    output_grid: Grid | None
    relu: bool
    reader: str

    @property
    def weights(self) -> Array:
        """Values of the weights in float64, filters first."""
        return self.weight * by_filter(self.scale.astype(np.float64), self.weight)

    @property
    def biases(self) -> Array:
        """Values of the biases in float64."""
        if self.bias is None:
            return np.zeros(len(self.scale))
        return self.bias * (self.scale.astype(np.float64) * np.float64(self.input_grid.scale))


def filter_axis(node: NodeProto) -> int:
    """Axis of the filters in the weight of a float layer."""
    return 1 if node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB")) else 0


def by_filter(values: Array, weight: Array) -> Array:
    """One value per filter, so that it multiplies a weight with filters first."""
    return values.reshape(-1, *[1] * (weight.ndim - 1))


def weight_scale(weight: Array, bias: Array | None, input_scale: np.float32) -> Array:
    """Scale of the rounded weights per filter: the largest magnitude / 63.

    It is more where the bias would not fit into int32 otherwise: a filter of almost only zeros, as batch norm makes.
    """
    scale = np.abs(weight).reshape(len(weight), -1).max(axis=1, initial=0) / _LARGEST
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) / (np.float64(input_scale) * _LARGEST_BIAS))
    return np.asarray(np.maximum(scale, _SMALLEST_SCALE), np.float32)


def rounded(weight: Array, scale: Array) -> Array:
    """The weights, filters first, as int8."""
    whole = np.rint(weight / by_filter(scale.astype(np.float64), weight))
    return np.asarray(whole.clip(-_LARGEST, _LARGEST).astype(np.int8))


def constant_behind(model: ModelProto, name: str) -> str:
    """The constant that a tensor is made of, through DequantizeLinear and what only moves its values."""
    producers = {node.output[0]: node for node in model.graph.node}
    while name in producers and producers[name].op_type in ("DequantizeLinear", "SpaceToDepth", "Pad"):
        name = producers[name].input[0]
    return name


def quantized_layers(model: ModelProto) -> Iterator[QuantizedLayer]:
    """The layers in 8 bits of a graph, in execution order."""
    values = initializers(model)
    producers = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        behind = [producers.get(name) for name in node.input]
        if node.op_type not in KINDS or not behind or any(b is None or b.op_type != "DequantizeLinear" for b in behind):
            continue
        x, w, *b = (found for found in behind if found is not None)
        source = producers.get(x.input[0])
        blocks = source is not None and source.op_type == "SpaceToDepth"
        reader = only_reader(model, node)
        last = reader if reader is not None and reader.op_type == "Relu" else node
        after = only_reader(model, last)
        rounds = after is not None and after.op_type == "QuantizeLinear"
        weight = values[constant_behind(model, w.input[0])]
        yield QuantizedLayer(
            node=node,
            input=source.input[0] if source is not None and blocks else x.input[0],
            input_grid=_grid(x, values),
            weight=np.moveaxis(weight, filter_axis(node), 0),
            scale=values[w.input[1]],
            bias=values[b[0].input[0]] if b else None,
            output=after.output[0] if after is not None and rounds else node.output[0],
            output_grid=_grid(after, values) if after is not None and rounds else None,
            relu=rounds and last is reader,
            reader="" if reader is None else reader.op_type,
        )


def _grid(node: NodeProto, values: dict[str, Array]) -> Grid:
    """Of a QuantizeLinear or DequantizeLinear."""
    return Grid(np.float32(values[node.input[1]]), np.uint8(values[node.input[2]]))
