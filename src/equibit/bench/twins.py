"""The dense twins of an exported file, made from the file alone: float32, and int8 as a deployer would quantise it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from equibit.bench.unrounded import remove_rounding
from equibit.errors import FormatError, InputError
from equibit.runtime import SIGNS_GIVEN, SIGNS_TAKEN, InferenceSession

Array = NDArray[Any]
_CALIBRATION_INPUTS = 32
_SIGNS = {"plus": 1.0, "minus": -1.0}


def random_inputs(session: InferenceSession, batch: int, *, strict: bool = True) -> list[Array]:
    """Standard normal inputs of a file, as of normalised pixels; the same ones in every call.

    Args:
        session: A session on the file.
        batch: Inputs in a batch.
        strict: Whether a file of another fixed batch size is an error; otherwise its own size is used.

    Raises:
        FormatError: An input is not float32, or a side other than the batch is not fixed.
        InputError: The file has a fixed batch size, and it is not `batch`.
    """
    generator = np.random.default_rng(0)
    inputs = []
    for value in session.get_inputs():
        first, *sides = value.shape or [None]
        if value.type != "tensor(float)" or first is None or not all(isinstance(side, int) for side in sides):
            raise FormatError(
                f"the input {value.name!r} is {value.type} of shape {value.shape}; bench takes float inputs of which "
                "every side but the batch is fixed."
            )
        if strict and isinstance(first, int) and first != batch:
            raise InputError(f"the file has the fixed batch size {first}, and batch is {batch}; give {first}.")
        inputs.append(generator.standard_normal((first if isinstance(first, int) else batch, *sides), np.float32))
    return inputs


def has_rounding(source: Path) -> bool:
    """Whether a file has float layers in 8 bits."""
    return any(node.op_type == "QuantizeLinear" for node in onnx.load(source).graph.node)


def write_float(source: Path, target: Path) -> None:
    """Writes the float32 twin: our functions inlined, and what is constant, the unpacked weights too, computed.

    Float layers that the file has in 8 bits take floats, their weights are those of the file.
    """
    flat, model = target.with_suffix(".flat.onnx"), onnx.load(source)
    for function in model.functions:
        _take_floats(function)
    model = onnx.inliner.inline_local_functions(model)
    remove_rounding(model)
    onnx.save(model, flat)
    quant_pre_process(flat, target, skip_symbolic_shape=True)  # onnxruntime's constant folding and shape inference
    flat.unlink()


def _take_floats(function: onnx.FunctionProto) -> None:
    """Lets signs between two layers be floats -1/+1, as a dense network has them, in the place of words."""
    last = function.node[-1]
    for node in function.node:
        if SIGNS_TAKEN in node.output:
            node.CopyFrom(helper.make_node("Identity", ["X"], [SIGNS_TAKEN]))
        elif SIGNS_GIVEN in node.output:
            signs = [helper.make_node("Constant", [], [name], value_float=value) for name, value in _SIGNS.items()]
            last.CopyFrom(helper.make_node("Where", [SIGNS_GIVEN, *_SIGNS], list(last.output)))
            before = [*function.node[:-1], *signs, last]
            del function.node[:]
            function.node.extend(before)
            break
    needed, kept = set(function.output), list[onnx.NodeProto]()
    for node in reversed(function.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    del function.node[:]
    function.node.extend(reversed(kept))


def write_int8(dense: Path, target: Path) -> None:
    """Writes the int8 twin of a float32 one: static QDQ with a scale per channel, calibrated on random inputs."""
    session = InferenceSession(dense)
    names = [value.name for value in session.get_inputs()]
    reader = _Once(names, random_inputs(session, _CALIBRATION_INPUTS, strict=False))
    quantize_static(
        dense, target, reader, quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8
    )


class _Once(CalibrationDataReader):  # type: ignore[misc]
    """One batch of calibration inputs."""

    def __init__(self, names: Sequence[str], inputs: Sequence[Array]) -> None:
        self._batches = iter([dict(zip(names, inputs, strict=True))])

    def get_next(self) -> dict[str, Array] | None:
        """The batch, then None."""
        return next(self._batches, None)
