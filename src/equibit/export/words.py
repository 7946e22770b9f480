"""Signs between two 1W1A layers, 64 in a word, where nothing but the signs of a layer's output is read.

What lies between the layers, from the scale to the last activation, is then a threshold per filter, on an integer. It
is found by trying all integers with the arithmetic of the steps, so that every bit is what their floats would have as
its sign.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from equibit import bits
from equibit.export.graph import Array, attribute, initializers, our_nodes, slots
from equibit.packed.onnx_ops import DOMAIN, WORDS_POOL, Operator

Floats = NDArray[np.float32]
_LARGEST = 2**22  # weights of a filter: stock onnxruntime must add its dot product and threshold up exactly in float32


def take_words(model: ModelProto) -> int:
    """Gives each 1W1A layer of which only signs are read a threshold per filter; returns how many.

    Between it and the layers of its kind that read it there may be batch norms, activations with constant bounds and
    slopes, sums with constants, and a max pooling: all of them become thresholds, the pooling one of words.
    """
    values, taken = initializers(model), 0
    for node in our_nodes(model):
        path = _path(model, node)
        if path is None:
            continue
        steps = [*_own_steps(node, values), *(_step(step, values, node) for step in path)]
        found = _thresholds(node, [step for step in steps if step is not None]) if None not in steps else None
        if found is not None:
            _rewrite(model, node, path, found)
            taken += 1
    return taken


@dataclass(frozen=True)
class _Step:
    """One step between two layers: y of one filter -> y, all float32.

    `direction` is, per filter, 1 where the step keeps the order of its inputs, -1 where it turns it round, 0 where it
    does neither for certain.
    """

    of: Callable[[Floats, int], Floats]
    direction: NDArray[np.int64]
    pools: bool = False


def _affine(factor: Array, shift: Array) -> _Step:
    factor, shift = factor.astype(np.float32), shift.astype(np.float32)
    return _Step(lambda y, i: y * factor[i] + shift[i], np.where(factor < 0, -1, 1))


def _clip(low: Array, high: Array) -> _Step:
    low, high = low.astype(np.float32), high.astype(np.float32)

    def of(y: Floats, i: int) -> Floats:
        y = np.where(y < low[i], low[i], y)
        return np.where(y > high[i], high[i], y)

    return _Step(of, np.where(low <= high, 1, 0))


def _slopes(slope: Array) -> _Step:
    slope = slope.astype(np.float32)
    return _Step(lambda y, i: np.where(y < 0, y * slope[i], y), np.where(slope >= 0, 1, 0))


def _filters(node: NodeProto) -> int:
    return int(attribute(node, "shape")[0])


def _own_steps(node: NodeProto, values: dict[str, Array]) -> list[_Step]:
    """What the node does with its dot products."""
    operator, count, given = Operator.of(node.op_type), _filters(node), slots(node)
    steps = [_affine(values[node.input[given["scale"]]], values[node.input[given["bias"]]])]
    if operator.activation == "Relu":
        steps.append(_clip(np.zeros(count), np.full(count, np.inf)))
    elif operator.activation == "PRelu":
        steps.append(_slopes(np.broadcast_to(values[node.input[given["slope"]]].ravel(), count)))
    elif operator.activation == "Clip":
        steps.append(_clip(*(np.full(count, attribute(node, name)) for name in ("low", "high"))))
    return steps


def _step(step: NodeProto, values: dict[str, Array], node: NodeProto) -> _Step | None:
    """What a node of the graph behind a layer does, if it is a step that we know."""
    count, rank = _filters(node), len(attribute(node, "shape"))
    norm = step.op_type == "BatchNormalization"
    constants = [_per_filter(values.get(name), count, 1 if norm else rank) for name in step.input[1:]]
    if step.domain or any(constant is None for constant in constants):
        return None
    known = [constant for constant in constants if constant is not None]
    if step.op_type == "MaxPool":
        return _Step(lambda y, _: y, np.ones(count, np.int64), pools=True) if _plain_pool(step) else None
    if norm:
        gamma, beta, mean, var = known
        factor = gamma / np.sqrt(var + attribute(step, "epsilon"))
        return _affine(factor, beta - mean * factor)
    if step.op_type in ("Add", "Sub") and len(known) == 1:
        return _affine(np.ones(count), known[0] if step.op_type == "Add" else -known[0])
    if step.op_type == "Relu":
        return _clip(np.zeros(count), np.full(count, np.inf))
    if step.op_type == "PRelu" and len(known) == 1:
        return _slopes(known[0])
    return _clip(*known) if step.op_type == "Clip" and len(known) == 2 else None


def _per_filter(value: Array | None, count: int, rank: int) -> Array | None:
    """A constant as one number per filter, in float64, if it broadcasts over a tensor of that rank as one.

    Filters are in dim 1; of a tensor of rank 1, in dim 0.
    """
    if value is None or value.ndim > rank:
        return None
    wide = (1,) * (rank - value.ndim) + value.shape
    along = (count,) if rank == 1 else (1, count, *(1,) * (rank - 2))
    known = wide in ((1,) * rank, along)
    return np.broadcast_to(value.ravel().astype(np.float64), count) if known else None


def _plain_pool(step: NodeProto) -> bool:
    """Whether a max pooling is one that `WordsMaxPool` does, its attributes written out."""
    given = {found.name: helper.get_attribute_value(found) for found in step.attribute}
    usual = {"auto_pad": b"NOTSET", "ceil_mode": 0, "storage_order": 0}
    plain = all(given.get(name, value) == value for name, value in usual.items())
    return plain and all(size == 1 for size in given.get("dilations", ())) and len(step.output) == 1


def _path(model: ModelProto, node: NodeProto) -> list[NodeProto] | None:
    """The nodes between a layer and those that take the signs of its output, and nothing but the signs."""
    operator = Operator.of(node.op_type)
    if operator.input != "Xnor" or operator.residual or operator.levels == "Offset" or not _takes_words(node, model):
        return None
    outputs, path, name = {value.name for value in model.graph.output}, list[NodeProto](), node.output[0]
    while True:
        readers = [other for other in model.graph.node if name in other.input]
        if name in outputs or not readers:
            return None
        if all(_reads_signs(reader, name, operator.base, model) for reader in readers):
            return path
        if len(readers) != 1 or readers[0].input[0] != name or name in readers[0].input[1:]:
            return None
        path.append(readers[0])
        name = readers[0].output[0]


def _reads_signs(node: NodeProto, name: str, base: str, model: ModelProto) -> bool:
    if node not in our_nodes(model):
        return False
    operator = Operator.of(node.op_type)
    alone = node.input[0] == name and name not in node.input[1:]
    return alone and operator.input == "Xnor" and operator.base == base and _takes_words(node, model)


def _takes_words(node: NodeProto, model: ModelProto) -> bool:
    """Whether a layer of signs is of a kind that can take and give words."""
    if Operator.of(node.op_type).base != "Linear":
        return Operator.of(node.op_type).base == "Conv" and attribute(node, "group") == 1
    shapes = {info.name: info.type.tensor_type.shape for info in (*model.graph.value_info, *model.graph.output)}
    return node.output[0] in shapes and len(shapes[node.output[0]].dim) == 2


@dataclass(frozen=True)
class _Thresholds:
    """`scale` * dot + `bias` >= 0 is the sign; `flips`: filters of which a pooling takes the smallest sign."""

    scale: Floats
    bias: Floats
    flips: NDArray[np.bool_]


def _thresholds(node: NodeProto, steps: list[_Step]) -> _Thresholds | None:
    """The thresholds of a layer, unless a filter's sign changes more than once over its dot products."""
    fan_in, count = int(np.prod(attribute(node, "shape")[1:])), _filters(node)
    pools = [i for i, step in enumerate(steps) if step.pools]
    directions = np.prod([step.direction for step in steps[pools[0] :]], axis=0) if pools else np.ones(count)
    if fan_in > _LARGEST or len(pools) > 1 or not directions.all():
        return None
    dots = np.arange(-fan_in, fan_in + 1, dtype=np.float32)
    found = [_threshold(dots, _values(dots, steps, i, finite=bool(pools))) for i in range(count)]
    known = [pair for pair in found if pair is not None]
    if len(known) < count:
        return None
    scale, bias = np.array(known, np.float32).T
    return _Thresholds(scale, bias, directions < 0)


def _values(dots: Floats, steps: Iterable[_Step], i: int, *, finite: bool) -> Floats | None:
    """Filter i's values behind the steps; where they must be finite and are not, None: NaN has no order."""
    y = dots
    with np.errstate(over="ignore", invalid="ignore"):
        for step in steps:
            y = step.of(y, i)
    return y if not finite or np.isfinite(y).all() else None


def _threshold(dots: Floats, y: Floats | None) -> tuple[float, float] | None:
    """Scale and bias that give y's signs, which change once at most."""
    if y is None:
        return None
    signs = y >= 0
    changes = np.flatnonzero(signs[1:] != signs[:-1])
    if len(changes) == 0:
        return 0, 0 if signs[0] else -1
    (below, above) = dots[changes[0] : changes[0] + 2]
    if len(changes) > 1:
        return None
    return (1, -above) if signs[-1] else (-1, below)


def _rewrite(model: ModelProto, node: NodeProto, path: list[NodeProto], found: _Thresholds) -> None:
    """Puts the thresholds into the node, and words behind it."""
    result = (path[-1] if path else node).output[0]
    readers = [other for other in our_nodes(model) if other.input[0] == result]
    _set_thresholds(model, node, result, found)
    for step in path:
        if step.op_type == "MaxPool":
            node.output[0] = f"{result}.signs"
            step.CopyFrom(_words_pool(model, step, node.output[0], result, found.flips))
        else:
            model.graph.node.remove(step)
    for reader in readers:
        reader.op_type = replace(Operator.of(reader.op_type), words="Words").name


def _set_thresholds(model: ModelProto, node: NodeProto, result: str, found: _Thresholds) -> None:
    inputs = dict(zip(Operator.of(node.op_type).inputs, node.input, strict=True))
    for slot, value in (("scale", found.scale), ("bias", found.bias)):
        inputs[slot] = f"{result}.{slot}.threshold"
        model.graph.initializer.append(numpy_helper.from_array(value, inputs[slot]))
    operator = replace(Operator.of(node.op_type), activation="", sign="Sign")
    kept = [given for given in node.attribute if given.name not in ("low", "high")]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.op_type, node.output[0] = operator.name, result
    node.input[:] = [inputs[name] for name in operator.inputs]


def _words_pool(model: ModelProto, pool: NodeProto, source: str, result: str, flips: NDArray[np.bool_]) -> NodeProto:
    given = {found.name: helper.get_attribute_value(found) for found in pool.attribute}
    kernel = given["kernel_shape"]
    attributes = {
        "kernel_shape": kernel,
        "strides": given.get("strides", [1] * len(kernel)),
        "pads": given.get("pads", [0] * (2 * len(kernel))),
    }
    words = bits.pack_bits(np.where(flips, 1, -1)[None]).view(np.uint64)[0]
    name = f"{result}.flips"
    model.graph.initializer.append(numpy_helper.from_array(words, name))
    return helper.make_node(WORDS_POOL, [source, name], [result], pool.name, domain=DOMAIN, **attributes)
