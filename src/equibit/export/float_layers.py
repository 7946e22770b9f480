"""Writes float layers in 8 bits (see `equibit.export.quantized`), with ranges from examples of the data."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper
from torch import Tensor

from equibit.errors import InputError, StateError
from equibit.export.calibrate import ranges
from equibit.export.graph import Array, attribute, initializers, only_reader, strip
from equibit.export.quantized import Grid, filter_axis, rounded, weight_scale

_FEW = 4  # channels of an input, up to which a strided convolution takes blocks of pixels as channels


def quantize_layers(model: ModelProto, names: Collection[str], calibration: Sequence[Tensor]) -> None:
    """Rounds weights and inputs of float layers to 8 bits, the outputs of convolutions too.

    An input's uint8 values cover what it is in the calibration inputs, beyond which it is clipped; weights are int8
    with a scale per filter. A ReLU behind a convolution comes before its rounding, and max pooling takes rounded
    values: neither changes what is computed.

    Args:
        model: The graph, batch norm folded; it is changed.
        names: Names of the nodes, as `equibit.export.graph.name_float_layers` gives them.
        calibration: Inputs of the network, batch in dim 0, as many as the graph has.

    Raises:
        InputError: There is no such layer; or the inputs are not what the network takes, or not finite.
        StateError: Weights are not finite.
    """
    nodes = [node for node in model.graph.node if node.name in names]
    if not nodes:
        raise InputError(
            "float_layers='int8' would change nothing: this model has no Linear or Conv1d/2d/3d layer in float that "
            "pads with zeros."
        )
    writer = _Writer(model)
    tails = {node.name: _tail(model, node) for node in nodes if node.op_type == "Conv"}
    wanted = {node.input[0] for node in nodes} | {tail.output[0] for tail in tails.values()}
    found = ranges(model, sorted(wanted), calibration)
    for node in nodes:
        writer.round_operands(node, found[node.input[0]])
        if node.name in tails:
            writer.round_output(node.name, tails[node.name], found[tails[node.name].output[0]])
    writer.finish()


def _tail(model: ModelProto, node: NodeProto) -> NodeProto:
    """What is rounded: the ReLU that alone reads the node, else the node."""
    reader = only_reader(model, node)
    return reader if reader is not None and reader.op_type == "Relu" else node


class _Writer:
    """Collects the nodes to insert, by the output of the node that they come before or after."""

    def __init__(self, model: ModelProto) -> None:
        self.model, self.values = model, initializers(model)
        self.before: dict[str, list[NodeProto]] = {}
        self.after: dict[str, list[NodeProto]] = {}
        self.rounded: dict[str, tuple[str, Grid, list[str]]] = {}  # float tensor -> uint8 one, its grid as constants

    def constant(self, name: str, value: Any) -> str:
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def grid(self, name: str, grid: Grid) -> list[str]:
        return [self.constant(f"{name}.scale", grid.scale), self.constant(f"{name}.zero", grid.zero)]

    def round_operands(self, node: NodeProto, extent: tuple[float, float]) -> None:
        """Input, weight and bias of a layer."""
        name, x, nodes = node.name, node.input[0], self.before.setdefault(node.output[0], [])
        if x not in self.rounded:
            grid = Grid.over(*extent)
            self.rounded[x] = f"{name}.input", grid, self.grid(f"{name}.input", grid)
            nodes.append(_node("QuantizeLinear", [x, *self.rounded[x][2]], f"{name}.input"))
        given, grid, constants = self.rounded[x]
        operands = self._weight_and_bias(node, grid, nodes)
        if _takes_blocks(self.model, node, operands[0][1]):
            given = self._into_blocks(node, given, operands[0][1], nodes)
            operands[0] = f"{name}.weight.blocks", operands[0][1]
        nodes.append(_node("DequantizeLinear", [given, *constants], f"{name}.input.float"))
        node.input[:] = [f"{name}.input.float"]
        for kind, (stored, _) in zip(("weight", "bias"), operands, strict=False):
            axis = filter_axis(node) if kind == "weight" else 0
            grids = [f"{name}.{kind}.{part}" for part in ("scale", "zero")]
            nodes.append(_node("DequantizeLinear", [stored, *grids], f"{name}.{kind}.float", axis=axis))
            node.input.append(f"{name}.{kind}.float")

    def _weight_and_bias(self, node: NodeProto, grid: Grid, nodes: list[NodeProto]) -> list[tuple[str, Array]]:
        """Name and value of the rounded weight, and of the bias where there is one."""
        name, axis = node.name, filter_axis(node)
        weight, *bias = (self.values[key].astype(np.float64) for key in node.input[1:])
        if not all(np.isfinite(part).all() for part in (weight, *bias)):
            raise StateError(f"the weights of layer {name!r} are not finite; they cannot be rounded to 8 bits.")
        rows = np.moveaxis(weight, axis, 0)
        scale = weight_scale(rows, bias[0] if bias else None, grid.scale)
        parts = [("weight", np.moveaxis(rounded(rows, scale), 0, axis), scale)]
        if bias:
            unit = scale * grid.scale
            parts.append(("bias", np.rint(bias[0] / unit).astype(np.int32), unit))
        for kind, value, scales in parts:
            self.constant(f"{name}.{kind}.rounded", value)
            self.constant(f"{name}.{kind}.scale", scales)
            self.constant(f"{name}.{kind}.zero", np.zeros(len(scales), value.dtype))  # QGemm is not fused without
        return [(f"{name}.{kind}.rounded", value) for kind, value, _ in parts]

    def _into_blocks(self, node: NodeProto, given: str, weight: Array, nodes: list[NodeProto]) -> str:
        """A strided convolution as one of stride 1 over blocks of pixels, s x s of which become channels.

        The same sums, and in onnxruntime up to twice as fast where channels are few. With padding p, tap k reads the
        pixel at s o + k - p; written as s (o + m) + r it is tap m of the block's pixel r. So the kernel is filled up
        with zeros to whole blocks. Runtimes compute the rearranged weight once.
        """
        name, (step, _) = node.name, attribute(node, "strides")
        places, old, kernel = _places(self.model, node), attribute(node, "pads"), weight.shape[2:]
        first = [-(-pad // step) for pad in old[:2]]
        filled = [step * blocks - pad for blocks, pad in zip(first, old[:2], strict=True)]
        taps = [-(-(zeros + size) // step) for zeros, size in zip(filled, kernel, strict=True)]
        rest = [step * t - zeros - size for t, zeros, size in zip(taps, filled, kernel, strict=True)]
        outputs = [(places[i] + old[i] + old[i + 2] - kernel[i]) // step + 1 for i in (0, 1)]
        last = [outputs[i] - 1 - places[i] // step + taps[i] - first[i] for i in (0, 1)]
        pads = self.constant(f"{name}.weight.pads", np.array([0, 0, *filled, 0, 0, *rest]))
        nodes.append(_node("Pad", [f"{name}.weight.rounded", pads], f"{name}.weight.padded"))
        nodes.append(_node("SpaceToDepth", [f"{name}.weight.padded"], f"{name}.weight.blocks", blocksize=step))
        nodes.append(_node("SpaceToDepth", [given], f"{name}.input.blocks", blocksize=step))
        kept = [part for part in node.attribute if part.name not in ("strides", "pads", "kernel_shape")]
        del node.attribute[:]
        node.attribute.extend(kept)
        changed = {"strides": [1, 1], "pads": [*first, *last], "kernel_shape": taps}
        node.attribute.extend(helper.make_attribute(key, value) for key, value in changed.items())
        return f"{name}.input.blocks"

    def round_output(self, name: str, tail: NodeProto, extent: tuple[float, float]) -> None:
        """The output of a convolution, and what max pooling makes of it."""
        pool = only_reader(self.model, tail)
        last = pool if pool is not None and pool.op_type == "MaxPool" and len(pool.output) == 1 else None
        grid, old, new = Grid.over(*extent), (last or tail).output[0], f"{name}.output"
        constants = self.grid(new, grid)
        self.before[f"{name}.sum"] = self.before.pop(tail.output[0], [])
        tail.output[0] = f"{name}.sum"
        nodes = self.after.setdefault(tail.output[0], [])
        nodes.append(_node("QuantizeLinear", [tail.output[0], *constants], new))
        if last is not None:
            last.input[0], new = new, f"{name}.pooled"
            last.output[0] = new
            nodes = self.after.setdefault(new, [])
        nodes.append(_node("DequantizeLinear", [new, *constants], old))
        self.rounded[old] = new, grid, constants

    def finish(self) -> None:
        """Puts the nodes into the graph and removes the float weights."""
        nodes = []
        for node in self.model.graph.node:
            key = node.output[0]
            nodes += [*self.before.get(key, []), node, *self.after.get(key, [])]
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.model.graph.node[:]
        self.model.graph.node.extend(copies)
        strip(self.model)


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs, [output], output, **attributes)


def _places(model: ModelProto, node: NodeProto) -> list[int]:
    """Height and width of an input of the graph; 0 where they are free, and of any other tensor."""
    found = (value.type.tensor_type.shape.dim for value in model.graph.input if value.name == node.input[0])
    return [side.dim_value for side in next(found, [])][2:] or [0, 0]


def _takes_blocks(model: ModelProto, node: NodeProto, weight: Array) -> bool:
    """Whether a layer is a strided convolution of few channels over a whole number of blocks of the graph's input."""
    if node.op_type != "Conv" or weight.ndim != 4 or weight.shape[1] > _FEW:
        return False
    step, other = attribute(node, "strides")
    plain = attribute(node, "group") == 1 and list(attribute(node, "dilations")) == [1, 1]
    plain &= all(part.s == b"NOTSET" for part in node.attribute if part.name == "auto_pad")
    whole = all(side and side % step == 0 for side in _places(model, node))
    return plain and step == other > 1 and min(weight.shape[2:]) > step and whole
