"""Passes over the exported graph: names, batch norm folding, and what does not belong into a file."""

import re
from ast import literal_eval
from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper
from onnx.helper import make_tensor_value_info

from equibit import bits
from equibit.packed.onnx_ops import DOMAIN, POOL, WORDS_POOL, Operator

Array = NDArray[Any]


def our_nodes(model: ModelProto) -> list[NodeProto]:
    """The packed layers of a graph, in execution order."""
    return [node for node in model.graph.node if is_layer(node)]


def is_layer(node: NodeProto) -> bool:
    """Whether a node is a packed layer."""
    return bool(node.domain == DOMAIN and node.op_type not in (POOL, WORDS_POOL))


def only_reader(model: ModelProto, node: NodeProto) -> NodeProto | None:
    """The one node that reads the output of `node`, once, where nobody else does."""
    output = node.output[0]
    readers = [other for other in model.graph.node for name in other.input if name == output]
    alone = len(readers) == 1 and output not in {value.name for value in model.graph.output}
    return readers[0] if alone else None


def attribute(node: NodeProto, name: str) -> Any:
    """The value of a node's attribute."""
    found = next(a for a in node.attribute if a.name == name)
    return {1: found.f, 2: found.i, 3: found.s, 7: list(found.ints)}[found.type]


def inner_value(model: ModelProto, name: str) -> ValueInfoProto:
    """A tensor inside the graph as one of its outputs: words of signs or float32."""
    words = any(
        name in node.output
        and node.domain == DOMAIN
        and (node.op_type == WORDS_POOL or (is_layer(node) and Operator.of(node.op_type).sign))
        for node in model.graph.node
    )
    return make_tensor_value_info(name, TensorProto.UINT64 if words else TensorProto.FLOAT, None)


def signs_in(words: Array, channels: int) -> Array:
    """The signs in words, int8 -1/+1: (batch, words, *places) -> (batch, channels, *places)."""
    rows = np.ascontiguousarray(np.moveaxis(words, 1, -1))
    return np.moveaxis(bits.unpack_bits(rows.view(np.uint8), channels), -1, 1)


def initializers(model: ModelProto) -> dict[str, Array]:
    """Constant tensors of the graph by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def slots(node: NodeProto) -> dict[str, int]:
    """Name of each input of one of our nodes -> its position."""
    return {name: i for i, name in enumerate(Operator.of(node.op_type).inputs)}


def name_nodes(model: ModelProto) -> None:
    """Gives each of our nodes the name of its layer, which the packed layer passed as an attribute.

    Names of nodes are unique: the second call of a layer gets the name with `#2`.
    """
    calls: Counter[str] = Counter()
    for node in our_nodes(model):
        name = attribute(node, "layer").decode()
        calls[name] += 1
        node.name = name if calls[name] == 1 else f"{name}#{calls[name]}"
        del node.attribute[next(i for i, a in enumerate(node.attribute) if a.name == "layer")]


def name_float_layers(model: ModelProto, layers: Collection[str]) -> list[str]:
    """Gives the nodes of the named modules, all constant but for their input, the module's name; returns the names.

    torch's exporter names a weight after its module unless it transposes it; then the node still knows the module,
    which it does not where batch norm was folded into it. The second call of a layer gets the name with `#2`.
    """
    calls: Counter[str] = Counter()
    constants, names = {tensor.name for tensor in model.graph.initializer}, []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or not constants.issuperset(node.input[1:]):
            continue
        scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
        candidates = (node.input[1].removesuffix(".weight"), *literal_eval(scopes)[-2:-1])
        name = next((name for name in candidates if name in layers), None)
        if name is not None:
            calls[name] += 1
            node.name = name if calls[name] == 1 else f"{name}#{calls[name]}"
            names.append(node.name)
    return names


def layer_name(node: NodeProto) -> str:
    """The layer that a node with its name is a call of."""
    return re.sub(r"#\d+$", "", node.name)


def fold_batch_norms(model: ModelProto) -> int:
    """Folds each batch norm that alone reads one of our nodes into its scale, offset and bias; returns how many.

    gamma (s W x + b - mean) / sqrt(var + eps) + beta: the scale and offset are multiplied by
    k = gamma / sqrt(var + eps), the bias becomes (b - mean) k + beta. Exact in real arithmetic; computed in float64.
    """
    folded = 0
    values, outputs = initializers(model), {value.name for value in model.graph.output}
    for node in our_nodes(model):
        readers = [other for other in model.graph.node if node.output[0] in other.input]
        alone = len(readers) == 1 and readers[0].op_type == "BatchNormalization" and node.output[0] not in outputs
        if not alone or not _per_filter(model, node) or not all(name in values for name in readers[0].input[1:]):
            continue
        _fold(model, node, readers[0], values)
        folded += 1
    return folded


def _per_filter(model: ModelProto, node: NodeProto) -> bool:
    """Whether dim 1 of the node's output are its filters: for Linear only with 2-D output, for the others always."""
    if Operator.of(node.op_type).base != "Linear":
        return True
    shapes = {info.name: info.type.tensor_type.shape for info in model.graph.value_info}
    return node.output[0] in shapes and len(shapes[node.output[0]].dim) == 2


def _fold(model: ModelProto, node: NodeProto, norm: NodeProto, values: dict[str, Array]) -> None:
    gamma, beta, mean, var = (values[name].astype(np.float64) for name in norm.input[1:5])
    factor = gamma / np.sqrt(var + attribute(norm, "epsilon"))
    for slot, position in slots(node).items():
        old = values.get(node.input[position])
        if slot in ("scale", "offset"):
            new = old * factor
        elif slot == "bias":
            new = (old - mean) * factor + beta  # type: ignore[operator]
        else:
            continue
        # A new tensor: the exporter merges equal constants, so the old one may have other readers. It is named after
        # the norm: a layer that is called twice may have two.
        node.input[position] = f"{norm.output[0]}.{slot}.folded"
        model.graph.initializer.append(numpy_helper.from_array(new.astype(np.float32), node.input[position]))
    node.output[0] = norm.output[0]
    model.graph.node.remove(norm)


def strip(model: ModelProto) -> None:
    """Removes constants nobody reads, and the traces of the export, several times the size of a small graph."""
    used = {name for node in model.graph.node for name in node.input} | {v.name for v in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *kept):
        part.ClearField("doc_string")
        del part.metadata_props[:]
