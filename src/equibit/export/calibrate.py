"""8-bit activations: the ranges of tensors, from examples of the data, and the scale of each 1-bit layer's input."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx import ModelProto, NodeProto, helper
from torch import Tensor

from equibit.errors import InputError
from equibit.export.functions import functions
from equibit.export.graph import Array, inner_value, our_nodes
from equibit.packed.onnx_ops import Operator
from equibit.runtime import InferenceSession

_BATCH = 64
_LARGEST = 127  # of the rounded values; -128 is left out, so that the range is symmetric


def round_inputs(model: ModelProto, calibration: Sequence[Tensor]) -> None:
    """Turns every node that takes its input as it is into one that rounds it to 8 bits.

    The rounded values are -127 .. 127 times a scale per layer, which is r / 127 with r the largest |x| that the layer
    gets; values beyond it are clipped. (On trained networks for MNIST, lower ranges, by percentiles or the smallest
    squared error, made the outputs no better: what a 1-bit layer sums up are the large values.)

    Args:
        model: The graph with our nodes; it is changed.
        calibration: Inputs of the network, batch in dim 0, as many as the graph has.

    Raises:
        InputError: No node takes its input as it is; or the inputs are not what the network takes, or not finite.
    """
    nodes = [node for node in our_nodes(model) if not Operator.of(node.op_type).input]
    if not nodes:
        raise InputError("activations='int8' would change nothing: no 1-bit layer of this model takes float inputs.")
    found = ranges(model, sorted({node.input[0] for node in nodes}), calibration)
    for node in nodes:
        low, high = found[node.input[0]]
        _round_input(node, (max(-low, high) or 1.0) / _LARGEST)


def _round_input(node: NodeProto, scale: float) -> None:
    node.op_type = replace(Operator.of(node.op_type), input="Int8").name
    node.attribute.append(helper.make_attribute("input_scale", scale))


def ranges(model: ModelProto, names: list[str], calibration: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
    """The smallest and largest value of each of the named float tensors over the calibration inputs.

    Raises:
        InputError: The inputs are not what the network takes, or they make a value that is not finite.
    """
    graph_inputs = [value.name for value in model.graph.input]
    sizes = {len(x) for x in calibration}
    if len(calibration) != len(graph_inputs) or len(sizes) != 1 or not all(sizes):
        shapes = [tuple(x.shape) for x in calibration]
        raise InputError(f"calibration is {shapes}; give as many inputs as the network takes: {graph_inputs}.")
    session = InferenceSession(_probe(model, names))
    inner = [value.name for value in session.get_outputs()]
    extents = dict.fromkeys(names, (np.inf, -np.inf))
    (count,) = sizes
    for start in range(0, count, _BATCH):
        batch = [x[start : start + _BATCH].cpu().numpy() for x in calibration]
        feeds = dict(zip(graph_inputs, batch, strict=True))
        found = feeds | dict(zip(inner, _run(session, inner, feeds), strict=True))
        for name, (low, high) in extents.items():
            values = found[name]
            extents[name] = (
                float(np.minimum(low, values.min(initial=np.inf))),  # NaN stays
                float(np.maximum(high, values.max(initial=-np.inf))),
            )
    if not np.isfinite(list(extents.values())).all():
        raise InputError("calibration makes an activation that is not finite; look for NaN in the inputs.")
    return extents


def _probe(model: ModelProto, names: list[str]) -> bytes:
    """The model with the named tensors as its outputs, graph inputs left out."""
    probe = ModelProto()
    probe.CopyFrom(model)
    known = {value.name for value in model.graph.input}
    del probe.graph.output[:]
    inner = [name for name in names if name not in known] or [value.name for value in model.graph.output]
    probe.graph.output.extend(inner_value(model, name) for name in inner)
    probe.functions.extend(functions(model))
    data: bytes = probe.SerializeToString()
    return data


def _run(session: InferenceSession, names: list[str], feeds: dict[str, Array]) -> list[Array]:
    try:
        return list(session.run(names, feeds))
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise InputError(f"the network does not take the calibration inputs: {error}") from error
