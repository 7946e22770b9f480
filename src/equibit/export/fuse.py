"""Passes over what follows a packed layer: the sum with a residual and the activation go into its node.

A native kernel then writes each output once, where it would be written and read again by a node for each step. Average
pooling becomes an operator of ours.
"""

from dataclasses import replace
from typing import Any

from onnx import ModelProto, NodeProto, helper

from equibit.export.graph import Array, attribute, initializers, only_reader, our_nodes
from equibit.packed.onnx_ops import DOMAIN, POOL, Operator


def fuse(model: ModelProto) -> int:
    """Fuses residual sums and activations into our nodes; returns how many nodes of the graph that saves.

    A step is fused if it alone reads the node's output, which is no output of the graph. The node moves to the place
    of the step, where the residual is known. `fold_batch_norms` comes first.
    """
    shapes, values = _shapes(model), initializers(model)
    fused = 0
    for name in [node.name for node in our_nodes(model)]:
        for pick in (_add, _activation):
            node = next(node for node in our_nodes(model) if node.name == name)
            step = only_reader(model, node)
            new = None if step is None else pick(node, step, shapes, values)
            if step is not None and new is not None:
                step.CopyFrom(new)
                model.graph.node.remove(node)
                fused += 1
    return fused


def _shapes(model: ModelProto) -> dict[str, list[Any]]:
    """Shapes of the tensors of the graph: numbers, and names of sizes that are free."""
    known = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    return {v.name: [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim] for v in known}


def _extended(node: NodeProto, step: NodeProto, operator: Operator, **parts: Any) -> NodeProto:
    """`node` as the given operator, with the output of `step`; `parts` are its new inputs (strings) and attributes."""
    new = NodeProto()
    new.CopyFrom(node)
    inputs = dict(zip(Operator.of(node.op_type).inputs, node.input, strict=True)) | parts
    new.op_type, new.output[0] = operator.name, step.output[0]
    new.input[:] = [inputs.pop(name) for name in operator.inputs]
    new.attribute.extend(helper.make_attribute(name, value) for name, value in inputs.items())
    return new


def _add(node: NodeProto, step: NodeProto, shapes: dict[str, list[Any]], _values: dict[str, Array]) -> NodeProto | None:
    """The node with the residual that `step` adds, if it is one of the same shape."""
    if step.op_type != "Add":
        return None
    residual = step.input[1 if step.input[0] == node.output[0] else 0]
    shape = shapes.get(node.output[0])
    if not shape or not all(shape) or shapes.get(residual) != shape:
        return None
    return _extended(node, step, replace(Operator.of(node.op_type), residual="Add"), residual=residual)


def _activation(
    node: NodeProto, step: NodeProto, shapes: dict[str, list[Any]], values: dict[str, Array]
) -> NodeProto | None:
    """The node with the activation that `step` is, if it is one that we have."""
    operator = replace(Operator.of(node.op_type), activation=step.op_type)
    if step.op_type == "Relu":
        return _extended(node, step, operator)
    if step.op_type == "PRelu" and _per_filter(node, step, shapes, values):
        return _extended(node, step, operator, slope=step.input[1])
    if step.op_type == "Clip" and len(step.input) == 3 and all(name in values for name in step.input[1:]):
        low, high = (float(values[name]) for name in step.input[1:])
        return _extended(node, step, operator, low=low, high=high)
    return None


def _per_filter(node: NodeProto, step: NodeProto, shapes: dict[str, list[Any]], values: dict[str, Array]) -> bool:
    """Whether the slope of a PRelu is constant, with one value per filter or one in all."""
    slope, rank = values.get(step.input[1]), len(shapes.get(node.output[0], ()))
    if slope is None or slope.ndim > rank:
        return False
    wide = [1] * (rank - slope.ndim) + list(slope.shape)
    per_filter = [1] * rank
    per_filter[-1 if Operator.of(node.op_type).base == "Linear" else 1] = attribute(node, "shape")[0]
    return wide in ([1] * rank, per_filter)


def take_pools(model: ModelProto) -> int:
    """Turns each average pooling of what a packed layer gives into our operator; returns how many.

    Left alone is one that pads, or counts places that are not there.
    """
    outputs = {name for node in our_nodes(model) for name in node.output}
    taken = 0
    for node in model.graph.node:
        if node.op_type != "AveragePool" or node.domain or node.input[0] not in outputs:
            continue
        given = {found.name: helper.get_attribute_value(found) for found in node.attribute}
        pads = any(given.get("pads", ())) or given.get("auto_pad", b"NOTSET") != b"NOTSET"
        ceil, counts = given.get("ceil_mode", 0), given.get("count_include_pad", 0)
        if pads or (ceil and counts) or any(step != 1 for step in given.get("dilations", ())):
            continue
        kernel = given["kernel_shape"]
        attributes = {"kernel_shape": kernel, "strides": given.get("strides", [1] * len(kernel)), "ceil_mode": ceil}
        node.CopyFrom(helper.make_node(POOL, node.input, node.output, node.name, domain=DOMAIN, **attributes))
        taken += 1
    return taken
