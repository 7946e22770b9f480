"""Run folders as the figures read them: plain files, found by what is in them and told apart by their config.yaml."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from equibit import yaml_format
from equibit.errors import FileError, FormatError

# Keys of a config that say on what a run was trained, and change its numbers by rounding at most.
WHERE_IT_RAN = (
    "train.device", "train.shard", "train.compile", "train.channels_last", "train.accumulate", "train.tensorboard",
    "data.path", "data.workers",
)  # fmt: skip


@dataclass(frozen=True)
class RunRecord:
    """One run folder.

    Attributes:
        path: The folder.
        config: The content of its config.yaml.
    """

    path: Path
    config: Mapping[str, Any]

    def get(self, key: str) -> Any:
        """A value of the config by dotted key; None where it, or its section, is absent or null."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The config by dotted key, without what is null or off: so is a key that older runs do not know."""
        flat: dict[str, Any] = {}
        for section, content in self.config.items():
            keys = {f"{section}.{k}": v for k, v in content.items()} if isinstance(content, Mapping) else {}
            flat |= keys or {section: content}
        return {key: value for key, value in flat.items() if value is not None and value is not False}

    @cached_property
    def epochs(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one for every finished epoch."""
        return _lines(self.path / "metrics.jsonl")

    @cached_property
    def layers(self) -> list[dict[str, Any]]:
        """The rows of layers.jsonl, one an epoch; empty for a run that did not record its layers."""
        path = self.path / "layers.jsonl"
        return _lines(path) if path.exists() else []

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json; empty where there is none."""
        path = self.path / "summary.json"
        return _json(path, path.read_text(encoding="utf-8")) if path.exists() else {}

    @property
    def seed(self) -> int:
        """The seed of the training."""
        return int(self.get("train.seed") or 0)

    @property
    def finished(self) -> bool:
        """Whether all epochs of the recipe are done."""
        return bool(len(self.epochs) == self.get("train.epochs"))

    @property
    def final_accuracy(self) -> float:
        """On the test set after the last epoch."""
        return float(self.epochs[-1]["test_accuracy"])

    @property
    def best_accuracy(self) -> float:
        """On the test set after its best epoch."""
        return float(max(row["test_accuracy"] for row in self.epochs))

    def layer_mean(self, key: str) -> list[tuple[int, float]]:
        """(epoch, mean over the layers) of a value of layers.jsonl, for the epochs in which any layer has one."""
        rows = []
        for row in self.layers:
            values = [layer[key] for layer in row["layers"].values() if layer.get(key) is not None]
            if values:
                rows.append((int(row["epoch"]), sum(values) / len(values)))
        return rows


def find(folders: Iterable[Path]) -> list[RunRecord]:
    """All run folders below some folders, in the order of their paths; a run folder has config.yaml and metrics.jsonl.

    Raises:
        FileError: A folder does not exist.
        FormatError: A config.yaml is damaged.
    """
    configs: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise FileError(f"there is no folder {folder} to look for runs in.")
        configs |= {path for path in folder.rglob("config.yaml") if path.with_name("metrics.jsonl").exists()}
    return [RunRecord(path.parent, _config(path)) for path in sorted(configs)]


def _config(path: Path) -> Mapping[str, Any]:
    try:
        values = yaml_format.load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise FormatError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, Mapping):
        raise FormatError(f"{path} holds no recipe: it is no mapping of sections.")
    return values


def _lines(path: Path) -> list[dict[str, Any]]:
    return [_json(path, line) for line in path.read_text(encoding="utf-8").splitlines()]


def _json(path: Path, text: str) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{path} is damaged: {error}.") from None
    return value
