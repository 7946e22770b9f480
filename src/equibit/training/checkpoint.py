"""The state of a training in one safetensors file: tensors, and all scalars as JSON in its metadata.

One file, so tensors and scalars can never be of different epochs. Tensor names start with `model/`, `optimizer/` or
`average/` or `flipped/`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from equibit.errors import FileError, FormatError
from equibit.files import write_atomically

_VERSION = "1"


@dataclass(frozen=True)
class State:
    """Everything a training needs to go on after `len(history)` epochs.

    Attributes:
        history: One row of metrics per finished epoch.
        model: The model's state dict.
        optimizer: The optimiser's tensors by `<parameter>/<quantity>`.
        average: The state dict of the model's running average; empty where there is none.
        layers: One line of `layers.jsonl` per epoch that recorded it.
        flipped: Bool by state-dict name: which binary weights have changed since the training started; empty where
            that is not known.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    model: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    average: Mapping[str, Tensor] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    flipped: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The state dict of the network that is scored and kept: the average's where there is one."""
        return _part(self.average, "module.") if self.average else self.model


def save_state(path: Path, state: State) -> None:
    """Writes the state; a kill at any moment leaves the old file or the new one."""
    tensors = {f"model/{k}": v for k, v in state.model.items()}
    tensors |= {f"optimizer/{k}": v for k, v in state.optimizer.items()}
    tensors |= {f"average/{k}": v for k, v in state.average.items()}
    tensors |= {f"flipped/{k}": v for k, v in state.flipped.items()}
    scalars = {"history": state.history, "layers": state.layers}
    _save(path, tensors, {"kind": "training state", "scalars": json.dumps(scalars)})


def load_state(path: Path) -> State:
    """Reads what `save_state` wrote.

    Raises:
        FormatError: The file is damaged or is not a training state of this version.
    """
    tensors, metadata = _load(path, "training state")
    try:
        scalars = json.loads(metadata["scalars"])
        history, layers = scalars["history"], scalars.get("layers", [])
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(f"{path} holds no readable scalars: {error}") from None
    model, optimizer, average, flipped = (
        _part(tensors, prefix) for prefix in ("model/", "optimizer/", "average/", "flipped/")
    )
    return State(history, model, optimizer, average, layers, flipped)


def save_weights(path: Path, weights: Mapping[str, Tensor], epoch: int) -> None:
    """Writes a model's state dict, with the epoch it is from."""
    _save(path, dict(weights), {"kind": "weights", "epoch": str(epoch)})


def load_weights(path: Path) -> dict[str, Tensor]:
    """Reads what `save_weights` wrote.

    Raises:
        FormatError: The file is damaged or does not hold weights of this version.
    """
    return _load(path, "weights")[0]


def load_into(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Puts a state dict read from `path` into a model.

    Raises:
        FormatError: The file holds another network's weights.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"{path} does not fit the network of its config.yaml: {reason}") from None


def _save(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    # Clones: safetensors refuses tensors that share memory (tied weights), and wants plain contiguous layout.
    plain = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    header = {"format": "equibit-training", "version": _VERSION, **metadata}
    try:
        write_atomically(path, lambda temporary: save_file(plain, temporary, header))
    except SafetensorError as error:  # how it reports a full disk
        raise FileError(f"cannot write {path}: {error}.") from None


def _load(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist.") from None
    except (SafetensorError, OSError) as error:
        raise FormatError(f"cannot read {path}: {error}. The file is damaged or incomplete.") from None
    found = (metadata.get("format"), metadata.get("version"), metadata.get("kind"))
    if found != ("equibit-training", _VERSION, kind):
        raise FormatError(f"{path} says {found}; expected an equibit-training file, version {_VERSION}, of {kind}.")
    return tensors, metadata


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
