"""What a figure needs trained, as data, and which of the recorded runs it may draw."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from equibit.figures.runs import WHERE_IT_RAN, RunRecord

# What config.yaml says of a method in its plain form; a setting changes single keys of it.
SIGN: Mapping[str, Any] = {"method.name": "sign", "method.density": 1.0}
BI_HALF: Mapping[str, Any] = {
    "method.name": "bi_half",
    "method.ratio": 0.5,
    "method.density": 1.0,
    "method.rescale": False,
}
IR_NET: Mapping[str, Any] = {"method.name": "ir_net"}
SIMAN: Mapping[str, Any] = {"method.name": "siman", "method.mode": "half"}
GROUP_TRANSFORM: Mapping[str, Any] = {"method.name": "group_transform", "method.form": "1b", "method.group": "filter"}
MULTI_PRIZE: Mapping[str, Any] = {
    "method.name": "multi_prize",
    "method.scope": "layer",
    "method.equal_bits": "off",
}

CONV2: Mapping[str, Any] = {"model.name": "conv2", "activation": None}
RESNET18: Mapping[str, Any] = {"model.name": "resnet18"}

# The budget of --quick for Conv-2: 8 epochs of 40 steps, each about 0.3 s on one CPU core, and 8 passes over the whole
# test set.
QUICK_EPOCHS = 8
QUICK: Mapping[str, Any] = {"data.train_images": 5000, "train.epochs": QUICK_EPOCHS, "train.amp": True}
# Where only the last epoch is drawn, of many trainings: 2 epochs of 78 steps, and 2 passes over the test set; a third
# of the time.
QUICK_LAST: Mapping[str, Any] = {"data.train_images": 10_000, "train.epochs": 2, "train.amp": True}
# Of experiments on L2 at full length. A short training takes Adam as its recipe says, which adds L2 to the gradient
# before it normalises: SGD needs some 1 / (lr L2) = 20,000 steps before L2 has any effect on the latents.
SGD: Mapping[str, Any] = {"optimizer.name": "sgd", "optimizer.lr": 0.1}

_FREE = ("method", "name", "train.seed", *WHERE_IT_RAN)  # what two runs of one series may differ in


@dataclass(frozen=True)
class Training:
    """One training that a figure needs: a shipped recipe, changes to it by dotted key, and the seed."""

    recipe: str
    changes: Mapping[str, Any]
    seed: int


@dataclass(frozen=True)
class Setting:
    """Trainings that differ in their seed only: a curve of a figure, or a point of one.

    Attributes:
        label: In the legend and the CSV.
        recipe: The shipped recipe that is trained.
        method: What the config of its runs says of the method.
        changes: What the experiment varies, by dotted key: changes to the recipe, and so in the config too.
        x: Where a point stands.
    """

    label: str
    recipe: str
    method: Mapping[str, Any]
    changes: Mapping[str, Any] = field(default_factory=dict)
    x: float | str | None = None

    @property
    def where(self) -> Mapping[str, Any]:
        """What the config of a run of this setting says."""
        return {**self.method, **self.changes}

    @property
    def name(self) -> str:
        """The label, with the place where labels repeat."""
        return self.label if self.x is None else f"{self.label} at {self.x}"


@dataclass(frozen=True)
class Panel:
    """Settings that are compared with each other.

    Attributes:
        title: Above the panel, and in the CSV.
        where: What the config of every run says: data, network, activation.
        settings: What is compared.
        budget: Changes to the recipes that make the training as long as planned.
        seeds: Trainings of each setting, with the seeds 0, 1, ...
        free: Further keys or sections in which the settings may differ, for example the residual block.
    """

    title: str
    where: Mapping[str, Any]
    settings: tuple[Setting, ...]
    budget: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1
    free: tuple[str, ...] = ()

    def trainings(self) -> list[Training]:
        """Everything to train, seed by seed, so that an early end leaves few runs of every setting."""
        return [Training(s.recipe, {**self.budget, **s.changes}, n) for n in range(self.seeds) for s in self.settings]


@dataclass(frozen=True)
class Series:
    """A setting and its runs: all finished, of one budget, one of each seed, in the order of their seeds."""

    setting: Setting
    runs: tuple[RunRecord, ...]


@dataclass(frozen=True)
class Found:
    """What was found for a panel.

    Attributes:
        panel: The panel.
        series: Those of its settings that have runs.
        common: By dotted key, everything in which all these runs agree; their budget among it.
        missing: What the plan wants and was not found, in words.
        left_out: Finished runs of the same settings, but of another budget or of a seed that was there.
    """

    panel: Panel
    series: tuple[Series, ...]
    common: Mapping[str, Any]
    missing: tuple[str, ...]
    left_out: int


def trainings(panels: Iterable[Panel]) -> list[Training]:
    """What the panels need, each training once."""
    unique: list[Training] = []
    for training in (training for panel in panels for training in panel.trainings()):
        if training not in unique:
            unique.append(training)
    return unique


def gather(panel: Panel, records: Sequence[RunRecord]) -> Found:
    """Chooses a panel's runs.

    Runs of different budgets are never drawn together. Of several budgets the planned one is taken; if no run is as
    planned, that in which most settings were trained, then that of most runs, then the longest.
    """
    matches = [(s, r) for s in panel.settings for r in records if _says(r, {**panel.where, **s.where})]
    finished = [(setting, record) for setting, record in matches if record.finished]
    free = (*_FREE, *panel.free, *(key for setting in panel.settings for key in setting.changes))
    cohorts: dict[str, list[tuple[Setting, RunRecord]]] = {}
    for setting, record in finished:
        cohorts.setdefault(repr(sorted(_common(record, free).items())), []).append((setting, record))
    chosen = max(cohorts.values(), key=lambda cohort: _rank(panel, cohort), default=[])
    by_setting = [(s, _one_per_seed([record for owner, record in chosen if owner is s])) for s in panel.settings]
    unfinished = [setting for setting, record in matches if not record.finished]
    return Found(
        panel=panel,
        series=tuple(Series(setting, runs) for setting, runs in by_setting if runs),
        common=_common(chosen[0][1], free) if chosen else {},
        missing=tuple(
            f"{panel.title}: {setting.name}: {len(runs)} of {panel.seeds} runs"
            + (f" ({unfinished.count(setting)} unfinished)" if setting in unfinished else "")
            for setting, runs in by_setting
            if len(runs) < panel.seeds
        ),
        left_out=len(finished) - sum(len(runs) for _, runs in by_setting),
    )


def _says(record: RunRecord, where: Mapping[str, Any]) -> bool:
    return all(record.get(key) == value for key, value in where.items())


def _common(record: RunRecord, free: Sequence[str]) -> dict[str, Any]:
    return {k: v for k, v in record.flat.items() if k not in free and k.partition(".")[0] not in free}


def _rank(panel: Panel, cohort: Sequence[tuple[Setting, RunRecord]]) -> tuple[int, int, int, int]:
    planned = sum(_says(record, {"name": setting.recipe, **panel.budget}) for setting, record in cohort)
    settings = len({id(setting) for setting, _ in cohort})
    return planned, settings, len(cohort), max(len(record.epochs) for _, record in cohort)


def _one_per_seed(records: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    by_seed: dict[int, RunRecord] = {}
    for record in records:
        by_seed.setdefault(record.seed, record)
    return tuple(by_seed[seed] for seed in sorted(by_seed))
