"""The comparison of float layers that a file has in 8 bits with the model's."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equibit.export.graph import Array, layer_name
from equibit.export.layer_check import TOLERANCE, LayerCheck, distance, magnitude
from equibit.export.quantized import QuantizedLayer, weight_scale

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}  # by the rank of the weight
_HALF_A_STEP = 0.501  # rounding, and float32 in what is rounded, of at most 255 steps

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


class RoundedLayers:
    """Compares each such layer on the file's inputs, then lets the model go on with the file's output.

    Attributes:
        calls: The calls of each layer in the file that the model has not made yet.
        checks: The comparisons.
        found: What the file computed, by name; given before the model runs.
    """

    def __init__(self, layers: Iterable[QuantizedLayer]) -> None:
        self.calls: dict[str, list[QuantizedLayer]] = {}
        for layer in layers:
            self.calls.setdefault(layer_name(layer.node), []).append(layer)
        self.checks: list[LayerCheck] = []
        self.found: Mapping[str, Array] = {}
        self.normed: set[tuple[str, int]] = set()  # layer and number of its calls left, where batch norm is folded
        self.pending: dict[int, tuple[Tensor, QuantizedLayer, Layer, Tensor]] = {}  # by id of the output

    @property
    def tensors(self) -> dict[str, int]:
        """Names of the tensors that must be in `found`, and their types."""
        layers = [layer for calls in self.calls.values() for layer in calls]
        floats = {layer.output: TensorProto.FLOAT for layer in layers if layer.output_grid is None}
        outputs = {layer.output: TensorProto.UINT8 for layer in layers if layer.output_grid is not None}
        return floats | outputs | {layer.input: TensorProto.UINT8 for layer in layers}

    def attach(self, model: nn.Module, run: Callable[[], object]) -> list[RemovableHandle]:
        """Hooks into the model, if the file has such layers; `run` runs it once, to see which batch norms follow."""
        if not self.calls:
            return []
        layers = {name: module for name, module in model.named_modules() if name in self.calls}
        norms = [module for module in model.modules() if isinstance(module, _NORMS)]
        self._find_norms(layers, norms, run)
        hooks = [
            layer.register_forward_hook(self._behind_layer(name), with_kwargs=True) for name, layer in layers.items()
        ]
        return [*hooks, *(norm.register_forward_hook(self._behind_norm) for norm in norms)]

    def _find_norms(self, layers: Mapping[str, nn.Module], norms: list[Any], run: Callable[[], object]) -> None:
        left = {name: list(calls) for name, calls in self.calls.items()}
        outputs: dict[int, tuple[Tensor, tuple[str, int]]] = {}

        def at_layer(name: str) -> Callable[..., None]:
            def hook(_layer: nn.Module, _args: Any, output: Tensor) -> None:
                if left[name]:
                    call = (name, len(left[name]))
                    layer = left[name].pop(0)
                    if layer.node.op_type != "MatMul" and layer.reader != "BatchNormalization":
                        outputs[id(output)] = output, call

            return hook

        def at_norm(_norm: nn.Module, args: tuple[Any, ...], _output: Tensor) -> None:
            if id(args[0]) in outputs:
                self.normed.add(outputs[id(args[0])][1])

        hooks = [layer.register_forward_hook(at_layer(name)) for name, layer in layers.items()]
        hooks += [norm.register_forward_hook(at_norm) for norm in norms]
        run()
        for handle in hooks:
            handle.remove()

    def _behind_layer(self, name: str) -> Callable[..., Tensor]:
        def hook(layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
            if not self.calls[name]:
                return output
            call = (name, len(self.calls[name]))
            found, x = self.calls[name].pop(0), args[0] if args else kwargs["input"]
            if call not in self.normed:
                return self._compare(found, layer, None, x)
            self.pending[id(output)] = output, found, layer, x
            return output

        return hook

    def _behind_norm(self, norm: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if id(args[0]) not in self.pending:
            return output
        _, found, layer, x = self.pending.pop(id(args[0]))
        return self._compare(found, layer, norm, x)

    def _compare(self, found: QuantizedLayer, layer: Layer, norm: Any, x: Tensor) -> Tensor:
        """The file's output, after it is compared."""
        own, given = x.cpu().numpy(), found.input_grid.values(self.found[found.input])
        allowed = _HALF_A_STEP * found.input_grid.scale + TOLERANCE * magnitude(own)
        input_ok = distance(given, found.input_grid.clip(own.astype(np.float64))) <= allowed < np.inf
        same = _same_weights(found, *_folded(layer, norm))
        output, expected = self.found[found.output], _exact(layer, given, found) if same else np.array(np.nan)
        tolerance = TOLERANCE * magnitude(expected)
        if found.output_grid is not None:
            output = found.output_grid.values(output)
            expected = found.output_grid.clip(expected.clip(min=0) if found.relu else expected)
            tolerance = float(_HALF_A_STEP * found.output_grid.scale)
        error = distance(output, expected)
        self.checks.append(LayerCheck(found.node.name, same, error, tolerance, bool(input_ok)))
        result = torch.from_numpy(output).to(x)
        # A MatMul of the file has its bias in a node of its own, in float.
        return result + layer.bias if found.node.op_type == "MatMul" and layer.bias is not None else result


def _folded(layer: Layer, norm: Any) -> tuple[Array, Array]:
    """Weight and bias of a layer with the batch norm behind it, in float64."""
    weight = layer.weight.detach().cpu().double().numpy()
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().cpu().double().numpy()
    if norm is None:
        return weight, bias
    mean, var = (statistic.cpu().double().numpy() for statistic in (norm.running_mean, norm.running_var))
    gamma, beta = (
        (part.detach().cpu().double().numpy() for part in (norm.weight, norm.bias))
        if norm.affine
        else (np.ones_like(mean), np.zeros_like(mean))
    )
    factor = gamma / np.sqrt(var + norm.eps)
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), (bias - mean) * factor + beta


def _same_weights(found: QuantizedLayer, weight: Array, bias: Array) -> bool:
    """Whether the file holds these weights and biases, with the scales of the exporter, half a step off at most."""
    if found.weight.shape != weight.shape:
        return False
    x_scale = found.input_grid.scale
    scale = weight_scale(weight, None if found.bias is None else bias, x_scale).astype(np.float64)
    steps = scale.reshape(-1, *[1] * (weight.ndim - 1))
    same = np.allclose(found.scale, scale, rtol=1e-4, atol=0)
    same &= bool((np.abs(found.weights - weight) <= _HALF_A_STEP * steps).all())
    if found.node.op_type != "MatMul":
        allowed = _HALF_A_STEP * scale * x_scale + 1e-5 * magnitude(bias)  # batch norm is folded in float32
        same &= bool((np.abs(found.biases - bias) <= allowed).all())
    return bool(same)


def _exact(layer: Layer, x: Array, found: QuantizedLayer) -> Array:
    """What the file's weights and biases make of its input, in float64."""
    given, weight = torch.from_numpy(x), torch.from_numpy(found.weights)
    if isinstance(layer, nn.Linear):
        return np.asarray(F.linear(given, weight).numpy() + found.biases)
    convolve = _CONVOLUTIONS[weight.dim()]
    y = convolve(given, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return np.asarray(y.numpy() + found.biases.reshape(-1, *[1] * (weight.dim() - 2)))
