"""A file whose float layers are in 8 bits, as it is without: for the float twin."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

Array = NDArray[Any]
_ROUNDS = ("QuantizeLinear", "DequantizeLinear")
_MOVES = ("Pad", "SpaceToDepth")  # what rearranges into blocks, a weight in this order


def remove_rounding(model: ModelProto) -> None:
    """Removes QuantizeLinear and DequantizeLinear; their constants become float32.

    A convolution over blocks of pixels, which is how the exporter writes a strided one of few channels, becomes the
    strided one again: float engines are faster on it.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {node.output[0]: node for node in graph.node}
    outputs = {value.name for value in graph.output}
    same: dict[str, str] = {}  # tensor -> the float one in its place
    kept = []
    for node in graph.node:
        if node.op_type in _ROUNDS:
            source = _constant(node, producers, constants) if node.op_type == "DequantizeLinear" else None
            if source is not None:
                value = _values(constants[source], [constants[name] for name in node.input[1:]], _axis(node))
                graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
                continue
            same[node.output[0]] = same.get(node.input[0], node.input[0])
            if node.output[0] in outputs:
                kept.append(helper.make_node("Identity", [same[node.output[0]]], [node.output[0]]))
            continue
        if node.op_type == "Conv":
            _undo_blocks(node, producers, constants, same)
        copy = NodeProto.FromString(node.SerializeToString())
        copy.input[:] = [same.get(name, name) for name in node.input]
        kept.append(copy)
    for _ in _MOVES:  # those that nobody reads any more
        read = {name for node in kept for name in node.input} | outputs
        kept = [node for node in kept if node.op_type not in _MOVES or node.output[0] in read]
    freed = {name for node in graph.node if node.op_type in (*_ROUNDS, *_MOVES) for name in node.input}
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input} | outputs
    tensors = [tensor for tensor in graph.initializer if tensor.name in used or tensor.name not in freed]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _constant(node: NodeProto, producers: dict[str, NodeProto], constants: dict[str, Array]) -> str | None:
    """The constant that a DequantizeLinear takes, before it is rearranged into blocks."""
    name = node.input[0]
    while name in producers and producers[name].op_type in _MOVES:
        name = producers[name].input[0]
    return name if name in constants else None


def _values(rounded: Array, grid: list[Array], axis: int) -> Array:
    """What rounded values stand for; `grid` is the scale and, where it is not 0, the zero, of all or along the axis."""
    shape = [1] * rounded.ndim
    if grid[0].ndim:
        shape[axis] = -1
    scale, *zero = (part.astype(np.float64).reshape(shape) for part in grid)
    return ((rounded - sum(zero)) * scale).astype(np.float32)


def _axis(node: NodeProto) -> int:
    return next((part.i for part in node.attribute if part.name == "axis"), 1)


def _undo_blocks(
    conv: NodeProto, producers: dict[str, NodeProto], constants: dict[str, Array], same: dict[str, str]
) -> None:
    """With blocks of s x s pixels, f of them padded in front and z zeros before the kernel: the padding is s f - z."""
    weight = producers.get(conv.input[1])
    blocks = None if weight is None else producers.get(weight.input[0])
    if blocks is None or blocks.op_type != "SpaceToDepth":
        return
    pad, step = producers[blocks.input[0]], helper.get_node_attr_value(blocks, "blocksize")
    fill = constants[pad.input[1]]
    filled, padded = [*fill[2:4], *fill[6:8]], helper.get_node_attr_value(conv, "pads")
    rearranged = producers[same[conv.input[0]]]
    conv.input[0] = same.get(rearranged.input[0], rearranged.input[0])
    kernel = constants[pad.input[0]].shape[2:]
    kept = [part for part in conv.attribute if part.name not in ("strides", "pads", "kernel_shape")]
    del conv.attribute[:]
    conv.attribute.extend(kept)
    changed = {
        "strides": [step, step],
        "pads": [int(step * count - zeros) for count, zeros in zip(padded, filled, strict=True)],
        "kernel_shape": kernel,
    }
    conv.attribute.extend(helper.make_attribute(key, value) for key, value in changed.items())
