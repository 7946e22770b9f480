"""The bodies of our operators in standard ONNX: what stock onnxruntime runs.

Every input but X is constant, so a runtime folds the unpacking at session start: a 1-bit file, float speed.
"""

import functools
from collections.abc import Sequence
from typing import Any

from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, TensorProto, helper

from equibit.packed.onnx_ops import DOMAIN, POOL, POOL_ATTRIBUTES, WORDS_POOL, WORDS_POOL_ATTRIBUTES, Operator
from equibit.runtime import SIGNS_GIVEN, SIGNS_TAKEN

OPSET = 20  # what torch's exporter writes by default, and the first with everything used here

# Attributes of a standard convolution.
_GEOMETRY = ("strides", "dilations", "pads", "output_padding", "group")
# Attributes that are one number; the others are lists of integers.
_SCALARS = {
    "group": AttributeProto.INT,
    "ceil_mode": AttributeProto.INT,
    "value_int": AttributeProto.INT,
    "value_float": AttributeProto.FLOAT,
}


class _Body:
    """Nodes of a function under construction; every method appends nodes and returns the name of the result."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []

    def op(self, kind: str, *inputs: str, refs: dict[str, str] | None = None, **attrs: Any) -> str:
        """One node; `refs` maps its attributes to attributes of the function."""
        result = f"{kind.lower()}_{len(self.nodes)}"
        node = helper.make_node(kind, inputs, [result], **attrs)
        for name, source in (refs or {}).items():
            kind_of_value = _SCALARS.get(name, AttributeProto.INTS)
            reference = AttributeProto(name=name, ref_attr_name=source, type=kind_of_value)
            node.attribute.append(reference)
        self.nodes.append(node)
        return result

    def finished(self, name: str, inputs: Sequence[str], attributes: Sequence[str]) -> FunctionProto:
        """The function, whose output Y is that of the last node."""
        self.nodes[-1].output[0] = "Y"
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_function(DOMAIN, name, inputs, ["Y"], self.nodes, opset, attributes)

    def ints(self, *values: int) -> str:
        """A constant vector of int64."""
        return self.op("Constant", value_ints=list(values))

    def tensor(self, kind: int, shape: Sequence[int], values: Sequence[float]) -> str:
        """A constant tensor."""
        return self.op("Constant", value=helper.make_tensor("value", kind, shape, values))

    def unpacked(self, rows: str, fan_in: str) -> str:
        """uint8 (filters, row bytes) -> float 0/1 (filters, fan_in), least significant bit first."""
        shifts = self.tensor(TensorProto.UINT8, [8], range(8))
        one = self.tensor(TensorProto.UINT8, [1], [1])
        shifted = self.op("BitShift", self.op("Unsqueeze", rows, self.ints(-1)), shifts, direction="RIGHT")
        spread = self.op("Reshape", self.op("BitwiseAnd", shifted, one), self.ints(0, -1))
        used = self.op("Slice", spread, self.ints(0), fan_in, self.ints(1))
        return self.op("Cast", used, to=TensorProto.FLOAT)

    def weight(self, levels: str) -> str:
        """scale * binary + offset as (filters, fan_in), from the function's inputs."""
        dimensions = self.op("Constant", refs={"value_ints": "shape"})
        kernel = self.op("Slice", dimensions, self.ints(1), self.ints(2**31 - 1))
        fan_in = self.op("ReduceProd", kernel, keepdims=1)
        doubled = self.op("Mul", self.unpacked("bits", fan_in), self.number(2))
        binary = self.op("Sub", doubled, self.number(1))
        if levels == "Ternary":
            binary = self.op("Mul", binary, self.unpacked("mask", fan_in))
        weight = self.op("Mul", binary, self.op("Unsqueeze", "scale", self.ints(-1)))
        if levels == "Offset":
            weight = self.op("Add", weight, self.op("Unsqueeze", "offset", self.ints(-1)))
        return self.op("Reshape", weight, dimensions)

    def channels_first(self, weight: str) -> str:
        """(filters, *kernel, channels) -> (input channels, filters / group, *kernel), as a ConvTranspose has it."""
        group = self.op("Reshape", self.op("Constant", refs={"value_int": "group"}), self.ints(1))
        parts = self.op("Concat", group, self.ints(-1), self.op("Shape", weight, start=1), axis=0)
        swapped = self.op("Transpose", self.op("Reshape", weight, parts), refs={"perm": "perm"})
        merged = self.op("Concat", self.ints(-1), self.op("Shape", swapped, start=2), axis=0)
        return self.op("Reshape", swapped, merged)

    def number(self, value: float) -> str:
        """A constant float32 scalar."""
        return self.tensor(TensorProto.FLOAT, [], [value])

    def at_bits(self, values: str, places: str) -> str:
        """A vector as it broadcasts over (batch, ..., vector, *places); `places` is the shape of those."""
        one = helper.make_tensor("value", TensorProto.INT64, [1], [1])
        ones = self.op("ConstantOfShape", self.op("Shape", places), value=one)
        return self.op("Reshape", values, self.op("Concat", self.op("Shape", values), ones, axis=0))

    def bits_of(self, words: str) -> str:
        """uint64 (batch, words, *places) -> float 0/1 (batch, 64 words, *places)."""
        places = self.op("Shape", words, start=2)
        shifts = self.at_bits(self.tensor(TensorProto.UINT64, [64], range(64)), places)
        shifted = self.op("BitShift", self.op("Unsqueeze", words, self.ints(2)), shifts, direction="RIGHT")
        spread = self.op("BitwiseAnd", shifted, self.tensor(TensorProto.UINT64, [1], [1]))
        channels = self.op("Mul", self.op("Shape", words, start=1, end=2), self.ints(64))
        shape = self.op("Concat", self.op("Shape", words, end=1), channels, places, axis=0)
        return self.op("Cast", self.op("Reshape", spread, shape), to=TensorProto.FLOAT)

    def words_of(self, set_bits: str) -> str:
        """bool (batch, channels, *places) -> uint64 (batch, words, *places).

        Sixteen bits of a word are one float sum: onnxruntime rounds sums of int64 as float64.
        """
        places = self.op("Shape", set_bits, start=2)
        channels = self.op("Shape", set_bits, start=1, end=2)
        missing = self.op("Mod", self.op("Neg", channels), self.ints(64))
        pads = self.op("Concat", self.ints(0), missing, axis=0)
        whole = self.op("Pad", self.op("Cast", set_bits, to=TensorProto.FLOAT), pads, "", self.ints(1))
        count = self.op("Div", self.op("Add", channels, missing), self.ints(64))
        shape = self.op("Concat", self.op("Shape", set_bits, end=1), count, self.ints(4, 16), places, axis=0)
        values = self.at_bits(self.tensor(TensorProto.FLOAT, [16], [1 << i for i in range(16)]), places)
        sums = self.op("ReduceSum", self.op("Mul", self.op("Reshape", whole, shape), values), self.ints(3), keepdims=0)
        shifts = self.at_bits(self.tensor(TensorProto.UINT64, [4], range(0, 64, 16)), places)
        quarters = self.op("BitShift", self.op("Cast", sums, to=TensorProto.UINT64), shifts, direction="LEFT")
        words = [self.op("Gather", quarters, self.op("Constant", value_int=i), axis=2) for i in range(4)]
        return functools.reduce(lambda left, right: self.op("BitwiseOr", left, right), words)

    def signs_in_words(self) -> str:
        """The signs in the words X, float -1/+1 (batch, channels, *places)."""
        dimensions = self.op("Constant", refs={"value_ints": "shape"})
        channels = self.op("Slice", dimensions, self.ints(-1), self.ints(2**31 - 1))
        return self.taken_signs(self.op("Slice", self.bits_of("X"), self.ints(0), channels, self.ints(1)))

    def taken_signs(self, bits: str) -> str:
        """Float 0/1 -> the signs that X holds, -1/+1, by the name that `bench` looks for."""
        self.op("Sub", self.op("Mul", bits, self.number(2)), self.number(1))
        self.nodes[-1].output[0] = SIGNS_TAKEN
        return SIGNS_TAKEN

    def give_signs(self, y: str) -> None:
        """The signs of y as the words Y; whether they are +1 has the name that `bench` looks for."""
        self.op("GreaterOrEqual", y, self.number(0))
        self.nodes[-1].output[0] = SIGNS_GIVEN
        self.words_of(SIGNS_GIVEN)

    def taken(self, kind: str) -> str:
        """What the layer computes with, from the input X of floats: its signs, its rounded values, or X itself."""
        if kind == "Xnor":
            plus = self.op("GreaterOrEqual", "X", self.number(0))
            return self.op("Where", plus, self.number(1), self.number(-1))
        if kind == "Int8":
            unit = self.op("Constant", refs={"value_float": "input_scale"})
            rounded = self.op("Round", self.op("Div", "X", unit))
            return self.op("Mul", self.op("Clip", rounded, self.number(-127), self.number(127)), unit)
        return "X"

    def layer(self, operator: Operator, x: str, weight: str) -> str:
        """The linear operation and the bias."""
        if operator.base == "Linear":
            return self.op("Add", self.op("MatMul", x, self.op("Transpose", weight, perm=[1, 0])), "bias")
        geometry = {name: name for name in operator.attributes if name in _GEOMETRY}
        if operator.base == "ConvTranspose":
            return self.op("ConvTranspose", x, self.channels_first(weight), "bias", refs=geometry)
        if operator.input == "Xnor":
            x = self.padded(x)
            del geometry["pads"]
        return self.op("Conv", x, self.op("Transpose", weight, refs={"perm": "perm"}), "bias", refs=geometry)

    def step(self, kind: str, y: str) -> str:
        """What is fused behind the layer: Add, Relu, PRelu or Clip."""
        if kind == "Clip":
            bounds = (self.op("Constant", refs={"value_float": name}) for name in ("low", "high"))
            return self.op("Clip", y, *bounds)
        return self.op(kind, y, *{"Add": ["residual"], "PRelu": ["slope"], "Relu": []}[kind])

    def padded(self, x: str) -> str:
        """`x` padded with the function's `pads` and `pad_value`."""
        pads = self.op("Reshape", self.op("Constant", refs={"value_ints": "pads"}), self.ints(2, -1))
        whole = self.op("Pad", pads, self.ints(0, 2, 0, 0))  # two zero columns: batch and channels are not padded
        value = self.op("Constant", refs={"value_float": "pad_value"})
        return self.op("Pad", x, self.op("Reshape", whole, self.ints(-1)), value)


def functions(model: ModelProto) -> list[FunctionProto]:
    """The functions of all operators of our domain that a graph uses."""
    return [function(name) for name in sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN})]


def function(name: str) -> FunctionProto:
    """The function of an operator of our domain, by its name (see `equibit.packed.onnx_ops`)."""
    if name == POOL:
        return _pool()
    return _words_pool() if name == WORDS_POOL else _layer(Operator.of(name))


def _pool() -> FunctionProto:
    body = _Body()
    body.op("AveragePool", "X", refs={name: name for name in POOL_ATTRIBUTES}, count_include_pad=0)
    return body.finished(POOL, ["X"], POOL_ATTRIBUTES)


def _words_pool() -> FunctionProto:
    body = _Body()
    signs = body.taken_signs(body.bits_of("X"))
    smallest = body.bits_of(body.op("Unsqueeze", "flips", body.ints(0)))
    used = body.op("Slice", smallest, body.ints(0), body.op("Shape", signs, start=1, end=2), body.ints(1))
    order = body.op("Sub", body.number(1), body.op("Mul", body.op("Squeeze", used, body.ints(0)), body.number(2)))
    order = body.at_bits(order, body.op("Shape", signs, start=2))
    pooled = body.op("MaxPool", body.op("Mul", signs, order), refs={name: name for name in WORDS_POOL_ATTRIBUTES})
    body.give_signs(body.op("Mul", pooled, order))
    return body.finished(WORDS_POOL, ["X", "flips"], WORDS_POOL_ATTRIBUTES)


def _layer(operator: Operator) -> FunctionProto:
    body = _Body()
    weight = body.weight(operator.levels)
    x = body.signs_in_words() if operator.words else body.taken(operator.input)
    y = body.layer(operator, x, weight)
    for step in filter(None, (operator.residual, operator.activation)):
        y = body.step(step, y)
    if operator.sign:
        body.give_signs(y)
    return body.finished(operator.name, operator.inputs, operator.attributes)
