"""Files of single nodes of our domain, for the tests of the operator library."""

import itertools
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from equibit import bits
from equibit.export.functions import OPSET, function
from equibit.packed.onnx_ops import Operator

OPERATORS = [
    Operator(*parts)
    for parts in itertools.product(
        ("", "Xnor", "Int8"),
        ("Binary", "Offset", "Ternary"),
        ("Linear", "Conv", "ConvTranspose"),
        ("", "Add"),
        ("", "Relu", "PRelu", "Clip"),
    )
] + [
    Operator("Xnor", levels, base, residual, activation, words, sign)
    for words, sign in (("Words", ""), ("", "Sign"), ("Words", "Sign"))
    for levels, base, residual, activation in itertools.product(
        ("Binary", "Ternary") if sign else ("Binary", "Offset", "Ternary"),
        ("Linear", "Conv"),
        ("",) if sign else ("", "Add"),
        ("",) if sign else ("", "Relu", "PRelu", "Clip"),
    )
]


@dataclass
class Case:
    """A node, its constants, and the shapes of one input and output of it."""

    operator: Operator
    name: str
    shape: tuple[int, ...]  # of X without the batch
    output: tuple[int, ...]
    attributes: dict
    constants: dict = field(repr=False)


def random_case(operator, name, seed):
    """A node with odd sizes, all drawn from the seed."""
    rng = np.random.default_rng(seed)
    axes = 0 if operator.base == "Linear" else int(rng.integers(1, 4))
    draw = lambda low, high: [int(n) for n in rng.integers(low, high + 1, axes)]  # noqa: E731
    in_words = operator.words or operator.sign
    group = int(rng.integers(1, 4)) if axes and not in_words else 1
    channels, filters = (
        int(rng.integers(1, 90 if axes < 2 else 20)),
        group * int(rng.integers(1, 70 if in_words else 9)),
    )
    kernel, stride, dilation, size = draw(1, 3), draw(1, 3), draw(1, 2), draw(5, 8)
    begins, ends = draw(0, 2), draw(0, 2)
    case = Case(operator, name, (group * channels, *size), (filters,), {"shape": [filters, *kernel, channels]}, {})
    if axes:
        _convolution(case, rng, zip(size, kernel, stride, dilation, begins, ends, strict=True), group)
    _constants(case, rng, filters, int(np.prod([*kernel, channels])))
    return case


def _convolution(case, rng, geometry, group):
    """Adds the attributes of a convolution and the places of its output."""
    size, kernel, stride, dilation, begins, ends = map(list, zip(*geometry, strict=True))
    axes, transposed = len(size), case.operator.base == "ConvTranspose"
    case.attributes |= {
        "strides": stride,
        "dilations": dilation,
        "pads": [*begins, *ends],
        "group": group,
        "perm": [0, axes + 2, 1, *range(2, axes + 2)] if transposed else [0, axes + 1, *range(1, axes + 1)],
    }
    if transposed:
        extra = [int(rng.integers(0, s)) for s in stride]  # stock onnxruntime takes no more
        case.attributes["output_padding"] = extra
        sides = zip(size, kernel, stride, dilation, begins, ends, extra, strict=True)
        case.output += tuple((n - 1) * s - b - e + d * (k - 1) + 1 + x for n, k, s, d, b, e, x in sides)
    else:
        if case.operator.input == "Xnor":
            case.attributes["pad_value"] = float(rng.integers(-1, 2))
        sides = zip(size, kernel, stride, dilation, begins, ends, strict=True)
        case.output += tuple((n + b + e - d * (k - 1) - 1) // s + 1 for n, k, s, d, b, e in sides)


def _constants(case, rng, filters, fan_in):
    """Adds random weights, and what the operator's name asks for."""
    kinds = [-1, 0, 1] if case.operator.levels == "Ternary" else [-1, 1]
    weights = rng.choice(kinds, (filters, fan_in)).astype(np.int8)
    if case.operator.levels == "Ternary":
        signs, mask = bits.pack_ternary(weights)
        case.constants["mask"] = mask
    else:
        signs = bits.pack_bits(weights)
    values = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    slope = (filters, *[1] * (len(case.output) - 1)) if rng.integers(2) else (1,)
    case.constants |= {
        "bits": signs,
        "scale": values(filters),
        "offset": values(filters),
        "bias": values(filters),
        "slope": values(*slope),
    }
    case.constants = {name: value for name, value in case.constants.items() if name in case.operator.inputs}
    if case.operator.sign:  # thresholds
        case.constants["scale"] = rng.integers(-1, 2, filters).astype(np.float32)
        case.constants["bias"] = rng.integers(-5, 6, filters).astype(np.float32)
    if case.operator.input == "Int8":
        case.attributes["input_scale"] = 0.02
    if case.operator.activation == "Clip":
        case.attributes |= {"low": -0.5, "high": 1.5}


def inputs(case, batch, seed=0):
    """X and the residual, if the operator takes one."""
    rng = np.random.default_rng(seed)
    found = {f"{case.name}.X": rng.standard_normal((batch, *case.shape)).astype(np.float32)}
    if case.operator.words:
        found = {name: words(x) for name, x in found.items()}
    if case.operator.residual:
        found[f"{case.name}.residual"] = rng.standard_normal((batch, *case.output)).astype(np.float32)
    return found


def words(x):
    """The signs of x (batch, channels, *places) as the operators have them: uint64 (batch, words, *places)."""
    rows = bits.pack_bits(np.moveaxis(x, 1, -1)).view(np.uint64)
    return np.moveaxis(rows, -1, 1).copy()


def shape_of_output(case):
    """Of one output, without the batch."""
    return (-(-case.output[0] // 64), *case.output[1:]) if case.operator.sign else case.output


def model(cases, body=function):
    """One file with a node for each case; `body` makes the functions of operators."""
    nodes, given, results, constants = [], [], [], []
    for case in cases:
        ends = [f"{case.name}.{slot}" for slot in case.operator.inputs]
        node = helper.make_node(
            case.operator.name, ends, [f"{case.name}.Y"], case.name, domain="equibit", **case.attributes
        )
        nodes.append(node)
        constants += [numpy_helper.from_array(v, f"{case.name}.{k}") for k, v in case.constants.items()]
        given += [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), ["batch", *value.shape[1:]]
            )
            for name, value in inputs(case, 1).items()
        ]
        kind = TensorProto.UINT64 if case.operator.sign else TensorProto.FLOAT
        results.append(helper.make_tensor_value_info(f"{case.name}.Y", kind, ["batch", *shape_of_output(case)]))
    graph = helper.make_graph(nodes, "nodes", given, results, constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("equibit", 1)]
    functions = [body(name) for name in sorted({case.operator.name for case in cases})]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)


def poisoned(name):
    """A function of the operator's inputs that gives NaN, whatever the operator computes."""
    operator = Operator.of(name)
    nan = helper.make_node("Constant", [], ["nan"], value_float=float("nan"))
    given = helper.make_node("Cast", ["X"], ["x"], to=TensorProto.FLOAT)
    sum_ = helper.make_node("Add", ["x", "nan"], ["y"])
    result = helper.make_node("Cast", ["y"], ["Y"], to=TensorProto.UINT64 if operator.sign else TensorProto.FLOAT)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_function(
        "equibit", name, operator.inputs, ["Y"], [nan, given, sum_, result], opset, operator.attributes
    )


def without(case, attribute):
    """The case with one attribute left out."""
    return replace(case, attributes={k: v for k, v in case.attributes.items() if k != attribute})


def save(proto, path):
    """Writes a file, and gives its path back."""
    onnx.save(proto, path)
    return path
