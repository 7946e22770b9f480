"""The bodies of our operators in standard ONNX: what stock onnxruntime runs.

Every input but X is constant, so a runtime folds the unpacking at session start: a 1-bit file, float speed.
"""

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper

from equibit.packed.onnx_ops import DOMAIN

OPSET = 20  # what torch's exporter writes by default, and the first with everything used here

# Attributes that are one number; the others are lists of integers.
_SCALARS = {"group": AttributeProto.INT, "value_int": AttributeProto.INT, "value_float": AttributeProto.FLOAT}


class _Body:
    """Nodes of a function under construction; every method appends nodes and returns the name of the result."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []

    def op(self, kind: str, *inputs: str, output: str = "", refs: dict[str, str] | None = None, **attrs: Any) -> str:
        """One node; `refs` maps its attributes to attributes of the function."""
        result = output or f"{kind.lower()}_{len(self.nodes)}"
        node = helper.make_node(kind, inputs, [result], **attrs)
        for name, source in (refs or {}).items():
            kind_of_value = _SCALARS.get(name, AttributeProto.INTS)
            reference = AttributeProto(name=name, ref_attr_name=source, type=kind_of_value)
            node.attribute.append(reference)
        self.nodes.append(node)
        return result

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
        two, one = self.tensor(TensorProto.FLOAT, [], [2.0]), self.tensor(TensorProto.FLOAT, [], [1.0])
        binary = self.op("Sub", self.op("Mul", self.unpacked("bits", fan_in), two), one)
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

    def sign(self, x: str) -> str:
        """+1 where x >= 0, else -1."""
        zero = self.tensor(TensorProto.FLOAT, [], [0.0])
        plus, minus = self.tensor(TensorProto.FLOAT, [], [1.0]), self.tensor(TensorProto.FLOAT, [], [-1.0])
        return self.op("Where", self.op("GreaterOrEqual", x, zero), plus, minus)

    def padded(self, x: str) -> str:
        """`x` padded with the function's `pads` and `pad_value`."""
        pads = self.op("Reshape", self.op("Constant", refs={"value_ints": "pads"}), self.ints(2, -1))
        whole = self.op("Pad", pads, self.ints(0, 2, 0, 0))  # two zero columns: batch and channels are not padded
        value = self.op("Constant", refs={"value_float": "pad_value"})
        return self.op("Pad", x, self.op("Reshape", whole, self.ints(-1)), value)


def function(name: str) -> FunctionProto:
    """The function of an operator of our domain, by its name (see `equibit.packed.onnx_ops`)."""
    xnor = name.startswith("Xnor")
    levels = next(word for word in ("Binary", "Offset", "Ternary") if word in name)
    extra = {"Binary": [], "Offset": ["offset"], "Ternary": []}[levels]
    inputs = ["X", "bits", *(["mask"] if levels == "Ternary" else []), "scale", *extra, "bias"]
    body = _Body()
    weight = body.weight(levels)
    x = body.sign("X") if xnor else "X"
    attributes = ["shape"]
    if name.endswith("Linear"):
        product = body.op("MatMul", x, body.op("Transpose", weight, perm=[1, 0]))
        body.op("Add", product, "bias", output="Y")
    elif name.endswith("ConvTranspose"):
        geometry = ["strides", "dilations", "pads", "output_padding", "group"]
        kernel, refs = body.channels_first(weight), {name: name for name in geometry}
        body.op("ConvTranspose", x, kernel, "bias", output="Y", refs=refs)
        attributes += ["perm", *geometry]
    else:
        refs = {"strides": "strides", "dilations": "dilations", "group": "group"} | ({} if xnor else {"pads": "pads"})
        kernel = body.op("Transpose", weight, refs={"perm": "perm"})
        body.op("Conv", body.padded(x) if xnor else x, kernel, "bias", output="Y", refs=refs)
        attributes += ["perm", "strides", "dilations", "pads", "group", *(["pad_value"] if xnor else [])]
    opset = [helper.make_opsetid("", OPSET)]
    return onnx.helper.make_function(DOMAIN, name, inputs, ["Y"], body.nodes, opset, attributes)
