"""The packed checkpoint: one safetensors file, no pickle.

Metadata: `format` = equibit, `version` = 1, `layers` = a JSON list with one object per packed layer (kind, name,
shape with filters first, method, levels, activation, pad_value). Tensors: the packed model's state dict.
"""

import copy
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, nn

from equibit import activations, bits, methods
from equibit.errors import FileError, FormatError, StateError
from equibit.files import write_bytes
from equibit.layers import filters_first, layer_kind, swapped_groups
from equibit.packed.modules import KINDS, PackedLayer, Spec
from equibit.packed.pack import packed_layers

_LEVELS = ("two", "offset", "three")


def save_packed(model: nn.Module, path: str | os.PathLike[str]) -> int:
    """Writes a packed model; the file appears whole or not at all.

    Args:
        model: What `pack` returned.
        path: File to write.

    Returns:
        Size of the file in bytes.

    Raises:
        StateError: The model holds no packed layer, or one of a method that is not in `equibit.methods`.
        FileError: The file cannot be written.
        FormatError: A tensor holds NaN, or a packed layer infinity.
    """
    specs = [replace(layer.spec, name=name) for name, layer in packed_layers(model)]
    if not specs:
        raise StateError("the model holds no packed layer; call equibit.pack(model) first.")
    try:
        _check_specs(specs)
    except ValueError as error:
        raise StateError(f"{error}; load_packed could not read this checkpoint.") from error
    state = {name: value.detach().contiguous().cpu().clone() for name, value in model.state_dict().items()}
    _check_values(state, specs)
    layers = json.dumps([asdict(spec) for spec in specs])
    data = save(state, metadata={"format": "equibit", "version": "1", "layers": layers})
    write_bytes(Path(path), data)
    return len(data)


def load_packed(path: str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """A packed model from a checkpoint and the float network it was made from.

    Args:
        path: File written by `save_packed`.
        model: The float architecture (its weights do not matter); it is not changed.

    Returns:
        A new model in eval mode with the packed layers in place.

    Raises:
        FileError: The file cannot be read.
        FormatError: It is no packed checkpoint of version 1, or does not fit `model`; the message says where.
    """
    specs, state = _read(Path(path))
    modules = dict(model.named_modules())
    try:
        memo: dict[int, Any] = {id(modules.get(spec.name)): _empty(spec, modules.get(spec.name)) for spec in specs}
        packed = copy.deepcopy(model, memo).eval()
        _fits(state, packed.state_dict())
        _check_values(state, specs)
        packed.load_state_dict(state)
        _check_shared(state, packed.state_dict())
        for name, layer in packed_layers(packed):
            _check_bits(name, layer)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    return packed


def _check_shared(state: dict[str, Tensor], loaded: dict[str, Tensor]) -> None:
    """Refuses two values for a tensor that the model holds under two names."""
    for name, value in loaded.items():
        if not torch.equal(value.cpu(), state[name]):
            raise FormatError(f"tensor {name!r} shares its memory with one of another value.")


def _check_bits(name: str, layer: PackedLayer) -> None:
    """Refuses set padding bits, and sign bits of pruned weights."""
    signs = layer.bits.cpu().numpy()
    try:
        if layer.mask is None:
            bits.unpack_bits(signs, layer.fan_in)
        else:
            bits.unpack_ternary(signs, layer.mask.cpu().numpy(), layer.fan_in)
    except FormatError as error:
        raise FormatError(f"layer {name!r}: {error}") from error


def _read(path: Path) -> tuple[list[Spec], dict[str, Tensor]]:
    if not path.is_file():
        raise FileError(f"no packed checkpoint at {path}.")
    try:
        with safetensors.safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
            state = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise FormatError(f"{path} is not a safetensors file: {error}.") from error
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}.") from error
    if metadata.get("format") != "equibit" or metadata.get("version") != "1":
        found = f"format={metadata.get('format')!r}, version={metadata.get('version')!r}"
        raise FormatError(f"{path} is not a packed checkpoint of version 1: its metadata says {found}.")
    try:
        specs = [Spec(**{**layer, "shape": tuple(layer["shape"])}) for layer in json.loads(metadata["layers"])]
        _check_specs(specs)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: the list of layers in the metadata is damaged: {error}.") from error
    return specs, state


def _check_specs(specs: list[Spec]) -> None:
    names = [spec.name for spec in specs]
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"it names the layers {names}")
    for spec in specs:
        if spec.kind not in KINDS or spec.levels not in _LEVELS or spec.method not in methods.REGISTRY:
            raise ValueError(
                f"layer {spec.name!r} has kind {spec.kind!r}, levels {spec.levels!r}, method {spec.method!r}"
            )
        if not all(isinstance(side, int) and side > 0 for side in spec.shape) or len(spec.shape) < 2:
            raise ValueError(f"layer {spec.name!r} has shape {spec.shape}")
        if spec.activation is not None:
            activations.create(spec.activation, spec.pad_value)


def _empty(spec: Spec, source: nn.Module | None) -> nn.Module:
    base = layer_kind(source) if source is not None else None
    if source is None or base is None or base.__name__ != spec.kind:
        found = "nothing" if source is None else type(source).__name__
        raise FormatError(f"the checkpoint has a {spec.kind} named {spec.name!r}; the model has {found} there.")
    shape = tuple(filters_first(cast(Tensor, source.weight).detach(), swapped_groups(source)).shape)
    if shape != spec.shape:
        raise FormatError(
            f"layer {spec.name!r} has shape {spec.shape} in the checkpoint and {shape} in the model (filters first); "
            "build the model with the arguments it was trained with."
        )
    activation = None if spec.activation is None else activations.create(spec.activation, spec.pad_value)
    if activation is not None:
        activation.attach(source)
        activation.take_over_padding(source)
    return KINDS[spec.kind](spec, source, activation)


def _fits(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or extra:
        raise FormatError(f"it does not fit the model: missing {missing}, not in the model {extra}.")
    for name, value in wanted.items():
        if state[name].shape != value.shape or state[name].dtype != value.dtype:
            found = f"{state[name].dtype} {tuple(state[name].shape)}"
            raise FormatError(f"tensor {name!r} is {found}; the model has {value.dtype} {tuple(value.shape)}.")


def _check_values(state: dict[str, Tensor], specs: list[Spec]) -> None:
    """Refuses NaN anywhere and infinity in a packed layer; elsewhere a buffer may hold it, as attention masks do."""
    packed = {f"{spec.name}.{part}".lstrip(".") for spec in specs for part in ("scale", "offset", "bias")}
    for name, value in state.items():
        finite = value.isfinite() if name in packed else ~value.isnan()
        if value.is_floating_point() and not bool(finite.all()):
            raise FormatError(f"tensor {name!r} holds {'a value that is not finite' if name in packed else 'NaN'}.")
