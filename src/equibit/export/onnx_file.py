"""Export to one ONNX file that stock onnxruntime runs and our kernels make fast."""

import contextlib
import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from equibit.errors import InputError, StateError, unknown
from equibit.export.calibrate import round_inputs
from equibit.export.float_layers import quantize_layers
from equibit.export.functions import OPSET, functions
from equibit.export.fuse import fuse, take_pools
from equibit.export.graph import fold_batch_norms, name_float_layers, name_nodes, strip
from equibit.export.words import take_words
from equibit.files import write_bytes
from equibit.layers import binary_layers
from equibit.packed import PackedLayer, pack, packed_layers

Inputs = Tensor | tuple[Tensor, ...]
PRECISIONS = ("float", "int8")
METADATA = ("format", "method", "dataset", "classes", "mean", "std", "recipe")
FORMAT = "1"


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    example_input: Inputs,
    activations: str = "float",
    calibration: Inputs | None = None,
    metadata: Mapping[str, Any] | None = None,
    *,
    float_layers: str = "float",
) -> int:
    """Writes a model to ONNX with 1-bit weights, batch norm folded, and a dynamic batch size.

    Each packed layer is one node of the domain `equibit`, with the residual sum and the activation behind it where
    there are any, and a function body in standard ONNX beside it: any onnxruntime runs the file. It appears whole or
    not at all.

    Args:
        model: A binarised or packed model, or a float one (written as it is).
        path: File to write.
        example_input: An input, or a tuple of inputs; dim 0 is the batch.
        activations: `float`, or `int8`: every packed layer that takes float inputs rounds them to 8 bits, with a
            fixed scale that `calibration` gives it. Layers that take signs stay as they are.
        calibration: For `int8` in either place, inputs as in training, like `example_input`; some hundred are enough.
        metadata: Any of method, dataset, classes, mean, std, recipe (with or without the prefix `equibit.`);
            written as strings, lists as JSON. `format` and `method` are filled in.
        float_layers: `float`, or `int8`: every Linear and Conv1d/2d/3d that is not binary, such as first and last
            layer, has 8-bit weights and takes 8-bit inputs, in standard operators that onnxruntime runs on integers.

    Returns:
        Size of the file in bytes.

    Raises:
        InputError: Unknown metadata key, metadata that JSON cannot hold, another value of `activations` or
            `float_layers`, no batch of example inputs, no layer to round, or calibration inputs that are missing, not
            wanted or not what the model takes.
        StateError: torch cannot export the model with a dynamic batch size, or it is not float32; or weights to be
            rounded are not finite.
        FileError: The file cannot be written.
    """
    _check_rounding(activations, float_layers, calibration)
    properties = _properties(metadata or {})
    examples = _examples(example_input)
    packed = pack(model) if next(binary_layers(model), None) else copy.deepcopy(model).eval()
    methods = sorted({layer.spec.method for _, layer in packed_layers(packed)})
    properties = {"format": FORMAT, **({"method": ",".join(methods)} if methods else {})} | properties
    _check_float32(packed, examples)
    proto = _trace(packed, examples)
    name_nodes(proto)
    left = name_float_layers(proto, _float_layers(packed))
    fold_batch_norms(proto)
    fuse(proto)
    take_words(proto)
    take_pools(proto)
    strip(proto)
    inputs = calibration if isinstance(calibration, tuple) else () if calibration is None else (calibration,)
    if activations == "int8":
        round_inputs(proto, inputs)
    if float_layers == "int8":
        quantize_layers(proto, left, inputs)
    proto.functions.extend(functions(proto))
    onnx.helper.set_model_props(proto, {f"equibit.{key}": value for key, value in properties.items()})
    proto.producer_name, proto.producer_version = "equibit", ""
    onnx.checker.check_model(proto)
    data = proto.SerializeToString()
    write_bytes(Path(path), data)
    return len(data)


def _check_rounding(activations: str, float_layers: str, calibration: Inputs | None) -> None:
    given = {"activations": activations, "float_layers": float_layers}
    for name, value in given.items():
        if value not in PRECISIONS:
            raise unknown(name, value, PRECISIONS)
        if value == "int8" and calibration is None:
            raise InputError(f"{name}='int8' needs calibration=: inputs as in training, a tensor (n, ...) or a tuple.")
    if "int8" not in given.values() and calibration is not None:
        raise InputError(
            "calibration is given, but nothing is rounded; say activations='int8' or float_layers='int8', or both."
        )


def _float_layers(model: nn.Module) -> set[str]:
    """Names of the layers that can be written in 8 bits."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, kinds))
    return {name for name, layer in layers if getattr(layer, "padding_mode", "zeros") == "zeros"}


def _properties(metadata: Mapping[str, Any]) -> dict[str, str]:
    found = {key.removeprefix("equibit."): value for key, value in metadata.items()}
    unknown = sorted(found.keys() - set(METADATA))
    if unknown:
        raise InputError(f"unknown metadata {', '.join(unknown)}; known: {', '.join(METADATA)}.")
    if found.get("format", FORMAT) != FORMAT:
        raise InputError(f"metadata format={found['format']!r}: this version writes {FORMAT!r}; leave it out.")
    try:
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in found.items() if v is not None}
    except TypeError as error:
        raise InputError(f"metadata is written as JSON; give strings, numbers and lists of them: {error}.") from error


def _examples(example_input: Inputs) -> tuple[Tensor, ...]:
    """The inputs to trace with; torch takes a size of 1 for a constant, so their batch is at least 2."""
    examples = example_input if isinstance(example_input, tuple) else (example_input,)
    if not examples or not all(isinstance(x, Tensor) and x.dim() and len(x) for x in examples):
        given = ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in examples)
        raise InputError(f"example_input is ({given}); give a tensor (n, ...) with n >= 1, or a tuple of them.")
    return tuple(torch.cat([x, x]) if len(x) == 1 else x for x in examples)


def _check_float32(model: nn.Module, examples: tuple[Tensor, ...]) -> None:
    tensors = [*model.named_parameters(), *model.named_buffers(), *(("an example input", x) for x in examples)]
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise StateError(f"{name} is {tensor.dtype}; export takes float32 models and inputs: call .float().")


def _trace(model: nn.Module, examples: tuple[Tensor, ...]) -> onnx.ModelProto:
    for _, layer in packed_layers(model):
        layer.forward = layer.export  # type: ignore[method-assign]
    if isinstance(model, PackedLayer):
        model = nn.Sequential(model)  # torch.export cannot take a root with a buffer that is None
    batch = torch.export.Dim("batch")
    names = ["input"] if len(examples) == 1 else [f"input_{i}" for i in range(len(examples))]
    try:
        with _quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                model,
                examples,
                dynamo=True,
                dynamic_shapes=tuple({0: batch} for _ in examples),
                input_names=names,
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise StateError(f"torch could not export the model to ONNX: {reason}") from error
    assert program is not None
    proto = program.model_proto
    if not all(value.type.tensor_type.shape.dim[0].dim_param for value in proto.graph.input):
        raise StateError(f"the model works with batches of {len(examples[0])} only; the batch size of a file is free.")
    if len(proto.graph.output) == 1:
        _rename_output(proto, "output")
    return proto


def _rename_output(proto: onnx.ModelProto, name: str) -> None:
    old = proto.graph.output[0].name
    proto.graph.output[0].name = name
    for node in proto.graph.node:
        for ends in (node.input, node.output):
            for i, end in enumerate(ends):
                if end == old:
                    ends[i] = name


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hides what torch's exporter says about its own dependencies; its errors still raise."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
