"""The run folder: what is in it, who may write it, and from where a training goes on."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from equibit import recipes
from equibit.errors import FileError, FormatError, InputError, StateError
from equibit.files import write_text
from equibit.recipes import Recipe
from equibit.training.checkpoint import State, load_state, save_state, save_weights
from equibit.training.record import best_row

# What may differ when a run goes on: its name, and on what it runs, which changes numbers by rounding at most.
_FREE = ("name", "train.device", "train.shard", "train.tensorboard", "data.path", "data.workers")


class RunFolder:
    """The files of one run. Every file is written whole or not at all.

    The order of writes in an epoch is `best.safetensors`, `metrics.jsonl`, `layers.jsonl`, `state.safetensors`: the
    state, written last, says which epochs count; one that a kill cut off is trained again to the same numbers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.layers = path / "layers.jsonl"
        self.state = path / "state.safetensors"
        self.best = path / "best.safetensors"
        self.summary = path / "summary.json"
        self.tensorboard = path / "tensorboard"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Creates the folder and keeps other processes out; the system frees the lock of a killed process.

        Raises:
            FileError: The folder cannot be created or written to.
            StateError: Another process trains here.
        """
        lock = filelock.FileLock(self.path / ".lock")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise StateError(
                f"another process is training in {self.path}. Wait for it, or use another --out."
            ) from None
        except OSError as error:
            reason = error.strerror or error
            raise FileError(f"cannot write to the run folder {self.path}: {reason}. Choose another --out.") from None
        try:
            yield
        finally:
            lock.release()

    def begin(self, recipe: Recipe, resume: bool) -> State:
        """Where the training starts: an empty state, or the saved one with `resume`.

        Raises:
            InputError: The folder holds a run and `resume` is false, or a run of another recipe.
            FormatError: A file of the run is damaged.
        """
        files = (self.config, self.metrics, self.layers, self.state, self.best, self.summary)
        present = [file.name for file in files if file.exists()]
        if present and not resume:
            raise InputError(
                f"{self.path} already holds a run ({', '.join(present)}). Pass --resume to continue it, "
                "or another --out to start a new one; nothing was changed."
            )
        if self.config.exists():
            self.require_same(recipe)
        elif present:
            raise InputError(f"{self.path} holds {', '.join(present)} but no config.yaml. Use another --out.")
        else:
            write_text(self.config, recipe.to_yaml())
        return self.saved_state()

    def saved_state(self) -> State:
        """The state on disk, an empty one where no epoch was finished.

        Raises:
            FormatError: The file is damaged.
        """
        return load_state(self.state) if self.state.exists() else State()

    def require_same(self, recipe: Recipe) -> None:
        """Refuses to go on with another (complete) recipe than that of `config.yaml`.

        Raises:
            InputError: They differ; the message lists what does.
        """
        stored = _flatten(recipes.load(self.config).to_dict())
        given = _flatten(recipe.to_dict())
        keys = [k for k in sorted(stored.keys() | given.keys()) if k not in _FREE and stored.get(k) != given.get(k)]
        if keys:
            changes = ", ".join(f"{k}: {stored.get(k)!r} there, {given.get(k)!r} now" for k in keys)
            raise InputError(
                f"cannot resume {self.path} with another recipe ({changes}). Resume with the recipe it has, "
                "or use another --out."
            )

    def save_epoch(self, state: State) -> None:
        """Writes one finished epoch."""
        if best_row(state.history)["epoch"] == state.epoch:
            save_weights(self.best, state.weights, state.epoch)
        self.write_records(state)
        save_state(self.state, state)

    def write_records(self, state: State) -> None:
        """Writes `metrics.jsonl` and `layers.jsonl` whole, one line an epoch."""
        for path, rows in ((self.metrics, state.history), (self.layers, state.layers)):
            write_text(path, "".join(json.dumps(row) + "\n" for row in rows))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes `summary.json`."""
        write_text(self.summary, json.dumps(summary, indent=2) + "\n")

    def read_summary(self) -> dict[str, Any]:
        """The summary of a finished run.

        Raises:
            FormatError: `summary.json` is damaged.
        """
        try:
            summary: dict[str, Any] = json.loads(self.summary.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise FormatError(f"cannot read {self.summary}: {error}") from None
        return summary


def _flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Sections with dotted keys: {"train": {"epochs": 3}} -> {"train.epochs": 3}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
    return flat
