"""The packed checkpoint: one safetensors file, no pickle.

Metadata: `format` = equibit, `version` = 1, `layers` = a JSON list with one object per packed layer (kind, name,
shape, method, levels, activation, pad_value). Tensors: the packed model's state dict.
"""

import copy
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save
from torch import Tensor, nn

from equibit import activations, bits, methods
from equibit.errors import FileError, FormatError, StateError
from equibit.files import write_bytes
from equibit.layers import layer_kind
from equibit.packed.modules import KINDS, Spec
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
        StateError: The model holds no packed layer.
        FileError: The file cannot be written.
        FormatError: A tensor holds NaN.
    """
    specs = [asdict(layer.spec) for _, layer in packed_layers(model)]
    if not specs:
        raise StateError("the model holds no packed layer; call equibit.pack(model) first.")
    state = {name: value.detach().contiguous().cpu().clone() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if value.is_floating_point() and bool(value.isnan().any()):
            raise FormatError(f"tensor {name!r} holds NaN; a packed checkpoint must not.")
    data = save(state, metadata={"format": "equibit", "version": "1", "layers": json.dumps(specs)})
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
    memo: dict[int, Any] = {id(modules.get(spec.name)): _empty(spec, modules.get(spec.name)) for spec in specs}
    packed = copy.deepcopy(model, memo).eval()
    _fits(state, packed.state_dict(), path)
    packed.load_state_dict(state)
    for name, layer in packed_layers(packed):
        signs = layer.bits.cpu().numpy()
        try:  # refuses set padding bits, and sign bits of pruned weights
            if layer.mask is None:
                bits.unpack_bits(signs, layer.fan_in)
            else:
                bits.unpack_ternary(signs, layer.mask.cpu().numpy(), layer.fan_in)
        except FormatError as error:
            raise FormatError(f"{path}, layer {name!r}: {error}") from error
    return packed


def _read(path: Path) -> tuple[list[Spec], dict[str, Tensor]]:
    if not path.is_file():
        raise FileError(f"no packed checkpoint at {path}.")
    try:
        with safetensors.safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
            state = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise FormatError(f"{path} is not a safetensors file: {error}.") from error
    if metadata.get("format") != "equibit" or metadata.get("version") != "1":
        found = f"format={metadata.get('format')!r}, version={metadata.get('version')!r}"
        raise FormatError(f"{path} is not a packed checkpoint of version 1: its metadata says {found}.")
    try:
        specs = [Spec(**{**layer, "shape": tuple(layer["shape"])}) for layer in json.loads(metadata["layers"])]
        _check_specs(specs)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: the list of layers in the metadata is damaged: {error}.") from error
    return specs, state


def _check_specs(specs: list[Spec]) -> None:
    for spec in specs:
        if spec.kind not in KINDS or spec.levels not in _LEVELS or spec.method not in methods.REGISTRY:
            raise ValueError(f"layer {spec.name!r} has kind {spec.kind!r}, levels {spec.levels!r}, {spec.method!r}")
        if not all(isinstance(side, int) and side > 0 for side in spec.shape) or len(spec.shape) < 2:
            raise ValueError(f"layer {spec.name!r} has shape {spec.shape}")


def _empty(spec: Spec, source: nn.Module | None) -> nn.Module:
    base = layer_kind(source) if source is not None else None
    if source is None or base is None or base.__name__ != spec.kind:
        found = "nothing" if source is None else type(source).__name__
        raise FormatError(f"the checkpoint has a {spec.kind} named {spec.name!r}; the model has {found} there.")
    if tuple(source.weight.shape) != spec.shape:  # type: ignore[union-attr, arg-type]
        raise FormatError(
            f"layer {spec.name!r} has shape {spec.shape} in the checkpoint and {tuple(source.weight.shape)} "  # type: ignore[union-attr, arg-type]
            "in the model; build the model with the arguments it was trained with."
        )
    activation = None if spec.activation is None else activations.create(spec.activation, spec.pad_value)
    if activation is not None:
        activation.take_over_padding(source)
    return KINDS[spec.kind](spec, source, activation)


def _fits(state: dict[str, Tensor], wanted: dict[str, Tensor], path: str | os.PathLike[str]) -> None:
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or extra:
        raise FormatError(f"{path} does not fit the model: missing {missing}, not in the model {extra}.")
    for name, value in wanted.items():
        if state[name].shape != value.shape or state[name].dtype != value.dtype:
            found = f"{state[name].dtype} {tuple(state[name].shape)}"
            raise FormatError(f"{path}: tensor {name!r} is {found}; the model has {value.dtype} {tuple(value.shape)}.")
        if value.is_floating_point() and not bool(state[name].isfinite().all()):
            raise FormatError(f"{path}: tensor {name!r} holds values that are not finite.")
