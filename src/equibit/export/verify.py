"""Does an exported file compute what the model computes?"""

import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx.helper import make_tensor_value_info
from torch import Tensor, nn

from equibit.activations import SignActivation
from equibit.errors import FormatError, InputError
from equibit.export.check_rounded import RoundedLayers
from equibit.export.graph import Array, attribute, initializers, inner_value, layer_name, our_nodes, signs_in, slots
from equibit.export.layer_check import TOLERANCE, LayerCheck, distance, magnitude
from equibit.export.onnx_file import Inputs
from equibit.export.quantized import quantized_layers
from equibit.layers import binary_layers
from equibit.packed import PackedConv, PackedLayer, pack, packed_layers
from equibit.packed.onnx_ops import Operator
from equibit.runtime import InferenceSession

# Of values whose signs a file gives in words: the model sums them up in float32 with the scale in every term, the file
# compares whole numbers. One more or less in the sum of 4,608 signs is about 4e-3 of the largest.
SIGN_TOLERANCE = 1e-4
_LAYER_INPUTS = 32  # inputs for the comparison inside the network, where every layer's output is kept
_BATCH = 256


@dataclass(frozen=True)
class Check:
    """The outcome of `verify_onnx`.

    Attributes:
        ok: Every layer ok, agreement 1, and the outputs within the tolerance. With binary or 8-bit activations, or
            float layers in 8 bits, agreement may be less: there ok means that the outputs agree while the model gets
            the file's input at every binary layer, 8-bit ones rounded as the file does (an input a rounding error
            from 0 has one sign here and the other there), and the file's output behind every layer in 8 bits.
        max_abs_error: Largest difference of an output.
        agreement: Share of predictions (largest entry of the first output along dim 1) that are the same.
        n: Number of inputs.
        tolerance: Allowed `max_abs_error`, 1e-3 of the largest output.
        layers: Layer by layer: binary ones, and float ones that the file has in 8 bits.
        accuracy: Share of the labels that the file predicts; None without labels.
        model_accuracy: The model's.
    """

    ok: bool
    max_abs_error: float
    agreement: float
    n: int
    tolerance: float
    layers: tuple[LayerCheck, ...]
    accuracy: float | None = None
    model_accuracy: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def verify_onnx(model: nn.Module, path: str | os.PathLike[str], inputs: Inputs, labels: Tensor | None = None) -> Check:
    """Compares an exported file with the model it was made from, layer by layer and in its outputs.

    The model may return tensors, or tuples, lists and mappings of them, as the models of Transformers do.

    Args:
        model: The binarised, packed or float model.
        path: The exported file.
        inputs: Inputs of the model, batch in dim 0, or a tuple of them.
        labels: Class of each input, for the accuracies.

    Returns:
        The comparison; it never raises because of a difference.

    Raises:
        InputError: No inputs, or not what the file takes; not a label for each; or the model returns something other
            than tensors.
        FileError: No file at `path`.
        FormatError: The file cannot be read, or its layers are not the model's.
    """
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    n = tensors[0].shape[0] if tensors and tensors[0].dim() else 0
    if n == 0:
        raise InputError("verify_onnx needs at least one input; give a tensor (n, ...) with n >= 1.")
    if labels is not None and labels.shape != (n,):
        raise InputError(f"labels have the shape {tuple(labels.shape)}; give one label for each of the {n} inputs.")
    session = InferenceSession(path)
    packed = pack(model) if next(binary_layers(model), None) else copy.deepcopy(model).eval()
    for _, layer in packed_layers(packed):
        layer.forward = layer.dense  # type: ignore[method-assign]  # not the kernels that run the file
    guide = _Guide(Path(path), tuple(t[:_LAYER_INPUTS] for t in tensors))
    outputs_ok = _check_layers(packed, guide)
    error = largest = same = total = 0.0
    right = np.zeros(2)
    for start in range(0, n, _BATCH):
        batch = tuple(t[start : start + _BATCH] for t in tensors)
        found = _run(session, batch)
        expected = _evaluate(packed, batch)
        if [f.shape for f in found] != [e.shape for e in expected]:
            shapes = [f.shape for f in found], [e.shape for e in expected]
            raise FormatError(f"{path} gives outputs of the shapes {shapes[0]}, the model {shapes[1]}.")
        error = max(error, *map(distance, found, expected))
        largest = max(largest, *map(magnitude, expected))
        predictions = [_predictions(side[0]) for side in (found, expected)]
        matches = predictions[0] == predictions[1]
        same, total = same + float(matches.sum()), total + matches.size
        if labels is not None:
            wanted = labels[start : start + _BATCH].cpu().numpy()
            right += [(side == wanted).sum() for side in predictions]
    tolerance = TOLERANCE * largest
    agreement = same / total
    if guide.takes_all:
        outputs_ok = agreement == 1 and error <= tolerance < np.inf
    layers = (*guide.checks, *guide.rounded.checks)
    ok = outputs_ok and all(layer.ok for layer in layers)
    accuracies = (None, None) if labels is None else (float(right[0] / n), float(right[1] / n))
    return Check(ok, error, agreement, n, tolerance, layers, *accuracies)


def _predictions(outputs: Array) -> Array:
    return outputs.argmax(axis=1) if outputs.ndim > 1 and outputs.shape[1] > 1 else np.zeros(len(outputs))


def _run(session: InferenceSession, batch: tuple[Tensor, ...]) -> list[Array]:
    names = [value.name for value in session.get_inputs()]
    if len(names) != len(batch):
        raise InputError(f"the file takes {len(names)} input(s) {names}, but {len(batch)} were given.")
    try:
        return list(session.run(None, {k: v.cpu().numpy() for k, v in zip(names, batch, strict=True)}))
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise InputError(f"the file does not take these inputs: {error}") from error


def _evaluate(packed: nn.Module, batch: tuple[Tensor, ...]) -> list[Array]:
    """The model's outputs."""
    try:
        with torch.no_grad():
            outputs = packed(*batch)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"the model does not take these inputs, which the file takes: {error}") from error
    return [output.cpu().numpy() for output in _tensors(outputs)]


def _tensors(outputs: Any) -> Iterator[Tensor]:
    """The tensors of a model's outputs in the order of the file's; a mapping counts by its values."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, (Mapping, tuple, list)):
        for part in outputs.values() if isinstance(outputs, Mapping) else outputs:
            yield from _tensors(part)
    elif outputs is not None:
        raise InputError(
            f"the model returns a {type(outputs).__name__}; verify_onnx compares tensors, and tuples, lists and "
            "mappings of them."
        )


class _Guide:
    """Runs the file once, then gives each packed layer of the model the file's input and compares the outputs.

    `takes_all` says that every layer takes its input as it is, neither its signs nor rounded values. `rounded` does
    the same for the float layers that the file has in 8 bits.
    """

    def __init__(self, path: Path, batch: tuple[Tensor, ...]) -> None:
        self.path, self.batch, proto = path, batch, onnx.load(path)
        nodes = our_nodes(proto)
        self.rounded = RoundedLayers(quantized_layers(proto))
        inner = {name: inner_value(proto, name) for node in nodes for name in (*node.input, *node.output)}
        inner |= {name: make_tensor_value_info(name, kind, None) for name, kind in self.rounded.tensors.items()}
        self.takes_all = not self.rounded.calls and not any(Operator.of(node.op_type).input for node in nodes)
        self.constants = initializers(proto)
        self.outputs = [value.name for value in proto.graph.output]
        known = {*self.constants, *self.outputs, *(value.name for value in proto.graph.input)}
        inner = {name: value for name, value in inner.items() if name not in known}
        proto.graph.output.extend(inner.values())
        results = _run(InferenceSession(proto.SerializeToString()), batch)
        self.found = self.constants | dict(zip([*self.outputs, *inner], results, strict=True))
        self.found |= {v.name: x.cpu().numpy() for v, x in zip(proto.graph.input, batch, strict=True)}
        self.rounded.found = self.found
        self.calls: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            self.calls.setdefault(layer_name(node), []).append(node)
        self.missing: list[str] = []
        self.input_ok = False
        self.argument: Tensor | None = None
        self.checks: list[LayerCheck] = []

    def before(
        self, layer: PackedLayer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Forward pre-hook: the file's input in the place of the model's."""
        if not self.calls.get(layer.spec.name):
            self.missing.append(layer.spec.name)
            return args, kwargs
        x = args[0] if args else kwargs["input"]
        node = self.calls[layer.spec.name][0]
        given = torch.from_numpy(self.given(node))
        if isinstance(layer, PackedConv) and layer.padding_mode != "zeros":
            given = F.pad(given, [-side for side in layer.pads])  # the file pads before the node
        own = layer.argument(x).cpu().numpy()
        if Operator.of(node.op_type).words:
            self.input_ok = _same_signs(given.numpy(), own)
        else:
            self.input_ok = distance(given.numpy(), own) <= TOLERANCE * magnitude(own) < np.inf
        self.argument = None
        if given.shape != x.shape:
            return args, kwargs
        if layer.activation is not None:
            self.argument = given.to(x.device)
            return args, kwargs
        if Operator.of(node.op_type).input == "Int8":
            given = _rounded(given, attribute(node, "input_scale"))
        return (given.to(x.device), *args[1:]), {name: value for name, value in kwargs.items() if name != "input"}

    def given(self, node: onnx.NodeProto) -> Array:
        """The input of a node in the file, float32; of words, their signs."""
        found = self.found[node.input[0]]
        return signs_in(found, attribute(node, "shape")[-1]).astype(np.float32) if found.dtype == np.uint64 else found

    def at_sign(self, activation: SignActivation, _args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Forward hook of a sign activation: the signs of what the file's node gets."""
        return output if self.argument is None else activation.signs(self.argument)

    def after(self, layer: PackedLayer, _args: tuple[Any, ...], output: Tensor) -> None:
        """Forward hook: compares with what the file computed."""
        if self.calls.get(layer.spec.name):
            node = self.calls[layer.spec.name].pop(0)
            values = {slot: self.found[node.input[i]] for slot, i in slots(node).items()}
            if Operator.of(node.op_type).sign:
                error, tolerance = self.wrong_signs(layer, node, values), 0.0
            else:
                expected = _fused(node, values, _folded(layer, node, values, output.double().cpu().numpy()))
                error, tolerance = distance(self.found[node.output[0]], expected), TOLERANCE * magnitude(expected)
            same = _same_bits(layer, values)
            self.checks.append(LayerCheck(node.name, same, error, tolerance, self.input_ok))

    def wrong_signs(self, layer: PackedLayer, node: onnx.NodeProto, values: dict[str, Array]) -> float:
        """Largest difference between the signs that a node gives and those of its thresholds; 0 where all are right.

        Sums of signs and thresholds are whole numbers, exact in float64.
        """
        if self.argument is None or layer.activation is None:
            return np.inf
        dots = _dots(layer, layer.activation.signs(self.argument)).cpu().numpy()
        shape = (1, -1, *(1,) * (dots.ndim - 2))
        reached = values["scale"].reshape(shape) * dots + values["bias"].reshape(shape) >= 0
        return distance(signs_in(self.found[node.output[0]], len(values["scale"])), np.where(reached, 1, -1))


def _dots(layer: PackedLayer, signs: Tensor) -> Tensor:
    """The layer's dot products of its input's signs with its binary weights, float64."""
    bias, layer.bias = layer.bias, None
    dots = layer.compute(signs.double(), layer.binary().double())
    layer.bias = bias
    return dots


def _same_signs(given: Array, own: Array) -> bool:
    """Whether signs are those of `own`, but for values a rounding error from 0."""
    if given.shape != own.shape:
        return False
    same = given == np.where(own >= 0, 1, -1)
    return bool(np.isfinite(own).all() and (same | (abs(own) <= SIGN_TOLERANCE * magnitude(own))).all())


def _check_layers(packed: nn.Module, guide: _Guide) -> bool:
    """Compares each call of a layer on the file's inputs; whether the network's outputs then agree."""
    handles = guide.rounded.attach(packed, lambda: _evaluate(packed, guide.batch))
    handles += [
        handle
        for _, layer in packed_layers(packed)
        for handle in (
            layer.register_forward_pre_hook(guide.before, with_kwargs=True),
            layer.register_forward_hook(guide.after),
        )
    ]
    signs = [layer.activation for _, layer in packed_layers(packed) if layer.activation is not None]
    handles += [activation.register_forward_hook(guide.at_sign) for activation in signs]
    outputs = _evaluate(packed, guide.batch)
    for handle in handles:
        handle.remove()
    left = [name for name, nodes in (guide.calls | guide.rounded.calls).items() if nodes]
    if left or guide.missing:
        raise FormatError(
            f"{guide.path} has the layers {left}, which the model does not call, and lacks {guide.missing}."
        )
    return all(
        distance(guide.found[name], output) <= TOLERANCE * magnitude(output) < np.inf
        for name, output in zip(guide.outputs, outputs, strict=False)
    )


def _rounded(x: Tensor, scale: float) -> Tensor:
    """The values that an Int8 operator takes."""
    unit = torch.tensor(scale, dtype=torch.float32)
    return (x / unit).round().clamp(-127, 127) * unit


def _same_bits(layer: PackedLayer, values: dict[str, Array]) -> bool:
    same = np.array_equal(values["bits"], layer.bits.cpu().numpy())
    if layer.mask is not None or "mask" in values:
        mask = None if layer.mask is None else layer.mask.cpu().numpy()
        same = same and mask is not None and np.array_equal(values.get("mask", ()), mask)
    return bool(same)


def _folded(layer: PackedLayer, node: onnx.NodeProto, values: dict[str, Array], output: Array) -> Array:
    """The layer's output after the affine map per filter that was folded into the file's node.

    With s the scale and b the bias of the layer and s', b' those in the file, y' = s' / s (y - b) + b'.
    """
    axis = -1 if Operator.of(node.op_type).base == "Linear" else 1
    shape = [1] * output.ndim
    shape[axis] = -1
    old, new = layer.scale.double().cpu().numpy(), values["scale"].astype(np.float64)
    if old.shape != new.shape:
        return np.full_like(output, np.nan)
    if layer.offset is not None and "offset" in values:  # a constant filter has scale 0
        offset = layer.offset.double().cpu().numpy()
        old, new = np.where(old == 0, offset, old), np.where(old == 0, values["offset"], new)
    bias = 0.0 if layer.bias is None else layer.bias.double().cpu().numpy().reshape(shape)
    factor = np.divide(new, old, out=np.zeros_like(old), where=old != 0).reshape(shape)
    return np.asarray(factor * (output - bias) + values["bias"].reshape(shape))


def _fused(node: onnx.NodeProto, values: dict[str, Array], y: Array) -> Array:
    """The output after what was fused behind the layer: the sum with the residual, the activation."""
    operator = Operator.of(node.op_type)
    if operator.residual and values["residual"].shape != y.shape:
        return np.full_like(y, np.nan)
    if operator.residual:
        y = y + values["residual"]
    if operator.activation == "PRelu":
        return np.where(y < 0, y * values["slope"], y)
    if operator.activation == "Clip":
        return y.clip(attribute(node, "low"), attribute(node, "high"))
    return np.maximum(y, 0) if operator.activation else y
