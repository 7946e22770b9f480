"""Recorded runs in groups that differ in their seed only."""

import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equibit import recipes
from equibit.figures.runs import WHERE_IT_RAN, RunRecord
from equibit.spread import Spread

_FREE = ("name", "train.seed", *WHERE_IT_RAN)  # what two runs of one experiment may differ in
_FROM_DATA = ("model.in_shape", "data.mean", "data.std")  # which a training completes where the recipe leaves them out


@dataclass(frozen=True)
class Group:
    """Finished runs of one recipe, one of each seed.

    Attributes:
        recipe: Its name.
        method: Key of the method, or float.
        epochs: That were trained.
        changes: In what else the runs differ from the recipe, by dotted key.
        runs: In the order of their seeds.
    """

    recipe: str
    method: str
    epochs: int
    changes: Mapping[str, Any]
    runs: tuple[RunRecord, ...]

    @property
    def final(self) -> Spread:
        """Accuracy after the last epoch."""
        return Spread.of([run.final_accuracy for run in self.runs])

    @property
    def best(self) -> Spread:
        """Accuracy after each run's best epoch."""
        return Spread.of([run.best_accuracy for run in self.runs])

    @property
    def test_n(self) -> tuple[int, ...]:
        """Test images, of which there is one number unless the runs had different test sets."""
        return tuple(sorted({int(run.epochs[-1]["test_n"]) for run in self.runs}))

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that the run folders lie in."""
        return tuple(sorted({run.path.parent for run in self.runs}))

    @property
    def hardware(self) -> tuple[str, ...]:
        """Processor of each kind of machine that trained."""
        machines = [run.summary["hardware"] for run in self.runs]
        return tuple(sorted({m["cpu"] if m["device"] == "cpu" else m["device"] for m in machines}))

    @property
    def torch(self) -> tuple[str, ...]:
        """Versions of torch that trained."""
        return tuple(sorted({run.summary["versions"]["torch"] for run in self.runs}))

    @property
    def commits(self) -> tuple[str, ...]:
        """Commits of the code that trained, in short; of an installed package there is none."""
        return tuple(sorted({_short(run.summary.get("commit")) for run in self.runs}))

    def last(self, key: str) -> float | None:
        """Mean over the runs of a metric of the last epoch; None where there is none."""
        values = [run.epochs[-1].get(key) for run in self.runs]
        found = [value for value in values if value is not None]
        return math.fsum(found) / len(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "recipe": self.recipe,
            "method": self.method,
            "epochs": self.epochs,
            "changes": dict(self.changes),
            "seeds": [run.seed for run in self.runs],
            "test_n": list(self.test_n),
            "final": vars(self.final),
            "best": vars(self.best),
            **{key: self.last(key) for key in ("bit_ratio", "bit_entropy", "flip_rate")},
        }


def group(records: Iterable[RunRecord]) -> list[Group]:
    """Groups of the finished runs, sorted by recipe, then the longest first; of equal trainings the first counts."""
    found: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.finished and record.summary:
            found.setdefault(repr((record.config["name"], sorted(_same(record).items()))), []).append(record)
    groups = [_group(runs) for runs in found.values()]
    return sorted(groups, key=lambda g: (g.recipe, -g.epochs, len(g.changes), repr(g.changes)))


def select(groups: Sequence[Group], names: Sequence[str]) -> list[Group]:
    """The groups of some recipes, in the order of these."""
    return [group for name in names for group in groups if group.recipe == name]


def alike(groups: Sequence[Group]) -> list[Group]:
    """Those that were trained for as long and with the same changes: of several such sets the largest, then longest."""
    sets: dict[str, list[Group]] = {}
    for one in groups:
        sets.setdefault(repr((one.epochs, sorted(one.changes.items()))), []).append(one)
    return max(sets.values(), key=lambda found: (len(found), found[0].epochs), default=[])


def _short(commit: str | None) -> str:
    """Seven digits, and whether the sources differed from the commit."""
    return "-" if commit is None else commit[:7] + ("-dirty" if commit.endswith("-dirty") else "")


def _group(records: Sequence[RunRecord]) -> Group:
    by_seed: dict[int, RunRecord] = {}
    for record in records:
        by_seed.setdefault(record.seed, record)
    first = records[0]
    name = str(first.config["name"])
    changes = {key: value for key, value in _changes(first, name).items() if key != "train.epochs"}
    runs = tuple(by_seed[seed] for seed in sorted(by_seed))
    return Group(name, str(first.get("method.name") or "float"), len(first.epochs), changes, runs)


def _same(record: RunRecord) -> dict[str, Any]:
    """The config, completed with what has become an option since, without what runs of a group may differ in."""
    varying = {"name": "", "train.seed": 0}
    config = _every_key(record.config)
    return _completed(json.dumps({k: v for k, v in config.items() if k not in varying}, sort_keys=True))


@functools.cache
def _completed(flat: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in json.loads(flat).items():
        section, _, name = key.partition(".")
        if name:
            values.setdefault(section, {})[name] = value
        else:
            values[section] = value
    whole = _every_key(recipes.from_dict(values, "").to_dict())
    return {key: value for key, value in whole.items() if key not in _FREE}


def _changes(record: RunRecord, name: str) -> dict[str, Any]:
    """What a run's config says otherwise than the shipped recipe of its name; nothing for a recipe of the user's."""
    shipped = _shipped(name)
    if shipped is None:
        return {}
    return {
        key: value
        for key, value in _same(record).items()
        if value != shipped.get(key) and not (key in _FROM_DATA and shipped.get(key) is None)
    }


@functools.cache
def _shipped(name: str) -> dict[str, Any] | None:
    return _every_key(recipes.load(name).to_dict()) if name in _budgets() else None


def budget(name: str) -> int | None:
    """Epochs of a shipped recipe; None if there is no such recipe."""
    return _budgets().get(name)


@functools.cache
def _budgets() -> dict[str, int]:
    return {row["name"]: int(row["epochs"]) for row in recipes.overview()}


def _every_key(config: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for section, content in config.items():
        flat |= (
            {f"{section}.{k}": v for k, v in content.items()} if isinstance(content, Mapping) else {section: content}
        )
    return flat
