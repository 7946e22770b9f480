"""Does an exported file compute what the model computes?"""

import copy
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto
from onnx.helper import make_tensor_value_info
from torch import Tensor, nn

from equibit.errors import FormatError, InputError
from equibit.export.graph import Array, initializers, our_nodes, slots
from equibit.export.onnx_file import Inputs
from equibit.layers import binary_layers
from equibit.packed import PackedLayer, pack, packed_layers
from equibit.runtime import InferenceSession

# Float32 sums in another order differ by a few eps of the terms' magnitude, more with depth (about 1e-6 of the largest
# output in digits_net, 1e-5 in resnet18). 1e-3 leaves room for deeper networks; a wrong bit in a layer is found by
# comparing bits, whatever it does to the outputs.
TOLERANCE = 1e-3
_LAYER_INPUTS = 32  # inputs for the comparison inside the network, where every layer's output is kept
_BATCH = 256


@dataclass(frozen=True)
class LayerCheck:
    """One packed layer on the same inputs: are the bits equal, and how far apart are the outputs?

    `max_abs_error` and `tolerance` are of the file's layer output, which holds the batch norm folded into it.
    """

    name: str
    bits_equal: bool
    max_abs_error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Bits equal and the error within the tolerance."""
        return self.bits_equal and self.max_abs_error <= self.tolerance


@dataclass(frozen=True)
class Check:
    """The outcome of `verify_onnx`.

    Attributes:
        ok: Every layer ok, agreement 1, and the outputs within the tolerance.
        max_abs_error: Largest difference of an output.
        agreement: Share of predictions (largest output along dim 1) that are the same.
        n: Number of inputs.
        tolerance: Allowed `max_abs_error`, 1e-3 of the largest output.
        layers: Layer by layer.
    """

    ok: bool
    max_abs_error: float
    agreement: float
    n: int
    tolerance: float
    layers: tuple[LayerCheck, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def verify_onnx(model: nn.Module, path: str | os.PathLike[str], inputs: Inputs) -> Check:
    """Compares an exported file with the model it was made from, layer by layer and in its outputs.

    Args:
        model: The binarised, packed or float model.
        path: The exported file.
        inputs: Inputs of the model, batch in dim 0, or a tuple of them.

    Returns:
        The comparison; it never raises because of a difference.

    Raises:
        InputError: No inputs, or not what the file takes.
        FileError: No file at `path`.
        FormatError: The file cannot be read, or its layers are not the model's.
    """
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    n = tensors[0].shape[0] if tensors and tensors[0].dim() else 0
    if n == 0:
        raise InputError("verify_onnx needs at least one input; give a tensor (n, ...) with n >= 1.")
    session = InferenceSession(path)
    packed = pack(model) if next(binary_layers(model), None) else copy.deepcopy(model).eval()
    layers = _check_layers(packed, Path(path), tuple(t[:_LAYER_INPUTS] for t in tensors))
    error = magnitude = same = total = 0.0
    for start in range(0, n, _BATCH):
        batch = tuple(t[start : start + _BATCH] for t in tensors)
        with torch.no_grad():
            expected = packed(*batch).cpu().numpy()
        found = _run(session, batch)[0]
        if found.shape != expected.shape:
            raise FormatError(f"{path} gives outputs of shape {found.shape}, the model {expected.shape}.")
        error, magnitude = max(error, _distance(found, expected)), max(magnitude, float(np.abs(expected).max()))
        matches = _predictions(found) == _predictions(expected)
        same, total = same + float(matches.sum()), total + matches.size
    tolerance = TOLERANCE * max(magnitude, 1e-6)
    agreement = same / total
    ok = agreement == 1 and error <= tolerance and all(layer.ok for layer in layers)
    return Check(ok, error, agreement, n, tolerance, layers)


def _predictions(outputs: Array) -> Array:
    return outputs.argmax(axis=1) if outputs.ndim > 1 and outputs.shape[1] > 1 else np.zeros(len(outputs))


def _distance(found: Array, expected: Array) -> float:
    """Largest difference; infinite where one of the two is not a number."""
    difference = np.abs(found.astype(np.float64) - expected)
    return float(np.where(np.isnan(difference), np.inf, difference).max())


def _run(session: InferenceSession, batch: tuple[Tensor, ...]) -> list[Array]:
    names = [value.name for value in session.get_inputs()]
    if len(names) != len(batch):
        raise InputError(f"the file takes {len(names)} input(s) {names}, but {len(batch)} were given.")
    try:
        return list(session.run(None, {k: v.cpu().numpy() for k, v in zip(names, batch, strict=True)}))
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise InputError(f"the file does not take these inputs: {error}") from error


def _check_layers(packed: nn.Module, path: Path, batch: tuple[Tensor, ...]) -> tuple[LayerCheck, ...]:
    """Compares bits, and each layer's output when the whole network runs on `batch`."""
    proto = onnx.load(path)
    nodes = our_nodes(proto)
    names = {name for name, _ in packed_layers(packed)}
    if {node.name for node in nodes} != names:
        raise FormatError(f"{path} holds the layers {sorted(n.name for n in nodes)}, the model {sorted(names)}.")
    if not nodes:
        return ()
    calls = _layer_outputs(packed, batch)
    del proto.graph.output[:]
    proto.graph.output.extend(make_tensor_value_info(n.output[0], TensorProto.FLOAT, None) for n in nodes)
    found = _run(InferenceSession(proto.SerializeToString()), batch)
    layers, values = dict(packed_layers(packed)), initializers(proto)
    return tuple(
        _compare(layers[node.name], node, values, calls[node.name].pop(0), output)
        for node, output in zip(nodes, found, strict=True)
    )


def _layer_outputs(packed: nn.Module, batch: tuple[Tensor, ...]) -> dict[str, list[Array]]:
    """Layer name -> its outputs, one for each time the model calls it."""
    calls: dict[str, list[Array]] = {name: [] for name, _ in packed_layers(packed)}
    handles = [
        layer.register_forward_hook(lambda _m, _i, out, name=name: calls[name].append(out.cpu().numpy()))
        for name, layer in packed_layers(packed)
    ]
    with torch.no_grad():
        packed(*batch)
    for handle in handles:
        handle.remove()
    return calls


def _compare(
    layer: PackedLayer, node: onnx.NodeProto, values: dict[str, Array], output: Array, found: Array
) -> LayerCheck:
    """The file's output is the layer's after an affine map per filter: with s the scale and b the bias of the layer
    and s', b' those in the file, y' = s' / s (y - b) + b'.
    """
    inputs = {slot: values[node.input[i]] for slot, i in slots(node).items() if slot != "X"}
    same = np.array_equal(inputs["bits"], layer.bits.cpu().numpy())
    if layer.mask is not None:
        same = same and np.array_equal(inputs["mask"], layer.mask.cpu().numpy())
    axis = 1 if node.op_type.endswith("Conv") else -1
    shape = [1] * found.ndim
    shape[axis] = -1
    scale = layer.scale.double().cpu().numpy()
    bias = 0.0 if layer.bias is None else layer.bias.double().cpu().numpy().reshape(shape)
    factor = np.divide(inputs["scale"], scale, out=np.zeros_like(scale), where=scale != 0).reshape(shape)
    expected = factor * (output - bias) + inputs["bias"].reshape(shape)
    return LayerCheck(node.name, bool(same), _distance(found, expected), TOLERANCE * max(float(np.abs(expected).max()), 1e-6))
