"""Many trainings under one folder: grids and repetitions of recipes, each training in a run folder of its own.

`jobs` names and checks them, a `Sweep` trains what of them is not finished yet (called again it goes on where it was),
`cells` joins the repetitions.
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from equibit import recipes
from equibit.data import Dataset
from equibit.errors import EquibitError, InputError
from equibit.recipes import Recipe
from equibit.recipes.grid import SEED
from equibit.run_list import Job, Outcome, Window, epochs_done, note_error, outcome
from equibit.spread import Spread
from equibit.training.folder import RunFolder
from equibit.training.loop import complete, load_data
from equibit.training.stack import kind, require_stackable
from equibit.training.steps import Row
from equibit.training.together import train_together

_SHOWN_EVERY = 1.0  # s
_UNSAFE = re.compile(r"[^\w.+-]+", re.ASCII)  # in the name of a folder


def jobs(runs: Iterable[tuple[str, Mapping[str, Any], int]], out: Path) -> list[Job]:
    """The trainings of (recipe name or file, changes by dotted key, seed), each checked and given a run folder.

    The folder is `out/RECIPE[.KEY=VALUE...].sSEED`, of every key its last part, or the whole key where two share it.

    Raises:
        InputError: A key or value is not allowed, or two runs are the same.
        FileError: A recipe cannot be read.
    """
    load = functools.cache(recipes.load)
    found = [_job(load(source), source, changes, seed, out) for source, changes, seed in runs]
    for path, count in Counter(job.out for job in found).items():
        if count > 1:
            raise InputError(f"{count} runs would write to {path}; each must differ from the others.")
    return found


def _job(recipe: Recipe, source: str, changes: Mapping[str, Any], seed: int, out: Path) -> Job:
    given = {**changes, SEED: seed}
    try:
        changed = recipes.override(recipe, given)
    except EquibitError as error:
        where = ", ".join(f"{key}={text_of(value)}" for key, value in changes.items())
        raise type(error)(f"{source}{' with ' * bool(where)}{where}: {error}") from None
    return Job(source, given, changed, out / _folder_name(recipe.name, changes, seed))


def _folder_name(name: str, changes: Mapping[str, Any], seed: int) -> str:
    shared = Counter(key.rpartition(".")[2] for key in changes)
    short = {key: key if shared[key.rpartition(".")[2]] > 1 else key.rpartition(".")[2] for key in changes}
    words = [f"{short[key]}={_UNSAFE.sub('_', text_of(value))}" for key, value in changes.items()]
    return ".".join([name, *words, f"s{seed}"])


def text_of(value: Any) -> str:
    """A value of a recipe as one word or JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def check(planned: Sequence[Job]) -> None:
    """Refuses, before anything is trained, what could not be.

    Raises:
        InputError: A recipe does not fit its data set, or its folder holds another run.
        FileError: A data set is not there.
        FormatError: A file is damaged.
    """
    loaded: tuple[object, Dataset] | None = None
    for job in planned:
        pixels = job.recipe.data
        key = (pixels.name, pixels.train_images, pixels.options)
        if loaded is None or loaded[0] != key:
            loaded = (key, load_data(job.recipe))
        folder, recipe = RunFolder(job.out), complete(job.recipe, loaded[1])
        if folder.config.exists():
            folder.require_same(recipe)


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    Attributes:
        runs: Runs that are over, finished or failed.
        all_runs: All of them.
        epochs: Finished epochs; of a failed run all that it would have had, so that 1 is reached.
        all_epochs: Epochs of all runs.
        seconds_left: At the pace since the sweep was started; None until an epoch is finished.
    """

    runs: int
    all_runs: int
    epochs: int
    all_epochs: int
    seconds_left: float | None


Follow = Callable[[Job | None, str, Progress], object]


class Trainings(Protocol):
    """What trains some jobs: processes (`Window`), a stack in this process (`Batches`), or a cluster."""

    def run(self, *, on_wait: Callable[[], object]) -> None:
        """Trains all that are not finished; `on_wait` is called now and then."""

    def outcomes(self) -> tuple[Outcome, ...]:
        """What became of each job, in their order; at any time."""


Start = Callable[[Sequence[Job], Callable[[Job, str], object]], Trainings]


class Sweep:
    """Trainings under way.

    Args:
        planned: What `jobs` gives; started in this order.
        parallel: How many train at once, each in a process of its own.
        replicas: How many train at once as one stack in this process (see `training.stack`); 1 for processes.
        start: Makes what trains them elsewhere, of the jobs and a function to call with a job and its new state.

    Raises:
        InputError: A number is below 1, or both are above it; a recipe cannot be trained in a stack; or as `check`.
    """

    def __init__(
        self, planned: Sequence[Job], *, parallel: int = 1, replicas: int = 1, start: Start | None = None
    ) -> None:
        if replicas < 1 or [replicas > 1, parallel > 1, start is not None].count(True) > 1:
            raise InputError(
                f"replicas is {replicas} and jobs {parallel}; give 1 or more, only one of them above 1, and none for a "
                "cluster."
            )
        self._trainings: Trainings
        check(planned)
        self.jobs = tuple(planned)
        if start is not None:
            self._trainings = start(self.jobs, self._changed)
        elif replicas > 1:
            self._trainings = Batches(self.jobs, self._changed, replicas=replicas)
        else:
            self._trainings = Window(self.jobs, parallel, self._changed)
        self._follow: Follow = lambda _job, _state, _progress: None
        self._done = {job.out: epochs_done(job) for job in self.jobs}
        self._states = dict.fromkeys(self._done, "not started")
        self._started, self._before, self._shown = 0.0, 0, 0.0

    def run(self, follow: Follow | None = None) -> tuple[Outcome, ...]:
        """Trains what is left, and gives the outcomes; a run that fails stops no other.

        Ctrl-C (KeyboardInterrupt) stops it and goes on to the caller; finished epochs are kept.

        Args:
            follow: Called with a job and its new state, and every second or so with None and an empty state.
        """
        self._follow = follow or self._follow
        self._started, self._before = monotonic(), sum(self._done.values())
        self._trainings.run(on_wait=self._wait)
        return self.outcomes()

    def outcomes(self) -> tuple[Outcome, ...]:
        """What became of each job, in their order; at any time."""
        return self._trainings.outcomes()

    def progress(self) -> Progress:
        """How far it is."""
        over = [job for job in self.jobs if self._states[job.out] in ("finished", "failed")]
        lost = sum(job.recipe.train.epochs - self._done[job.out] for job in over)
        done, every = sum(self._done.values()), sum(job.recipe.train.epochs for job in self.jobs)
        pace = (done - self._before) / max(monotonic() - self._started, 1e-9)
        return Progress(len(over), len(self.jobs), done + lost, every, (every - done - lost) / pace if pace else None)

    def _changed(self, job: Job, state: str) -> None:
        self._states[job.out], self._done[job.out] = state, epochs_done(job)
        self._follow(job, state, self.progress())

    def _wait(self) -> None:
        if monotonic() - self._shown >= _SHOWN_EVERY:
            self._shown = monotonic()
            self._done |= {job.out: epochs_done(job) for job in self.jobs if self._states[job.out] == "training"}
            self._follow(None, "", self.progress())


class Batches:
    """Trainings of alike networks, some of them at once in this process.

    Args:
        planned: What `jobs` gives.
        on_change: Called with a job and its new state.
        replicas: The most that train at once.

    Raises:
        InputError: A recipe cannot be trained in a stack.
    """

    def __init__(self, planned: Sequence[Job], on_change: Callable[[Job, str], object], *, replicas: int) -> None:
        for job in planned:
            require_stackable(job.recipe)
        self._jobs, self._replicas, self._on_change = planned, replicas, on_change
        self._states = {job.out: "not started" for job in planned}
        self._seconds = {job.out: 0.0 for job in planned}

    def run(self, on_wait: Callable[[], object]) -> None:
        """Trains all that are not finished; `on_wait` is called after every epoch of a run."""
        left: dict[str, list[Job]] = {}
        for job in self._jobs:
            if job.is_finished():
                self._change(job, "finished")
            else:
                left.setdefault(kind(job.recipe).to_yaml(), []).append(job)
        for alike in left.values():
            for first in range(0, len(alike), self._replicas):
                self._train(alike[first : first + self._replicas], on_wait)

    def _train(self, group: Sequence[Job], on_wait: Callable[[], object]) -> None:
        start = monotonic()
        for job in group:
            self._change(job, "training")
        given, folders = [job.recipe for job in group], [job.out for job in group]
        results: Sequence[Row | Exception]
        try:
            results = train_together(given, folders, lambda _run, _row: on_wait())
        except Exception as error:  # whatever it is, the other groups go on
            results = [error] * len(group)
        except KeyboardInterrupt:
            for job in group:
                self._change(job, "stopped")
            raise
        for job, result in zip(group, results, strict=True):
            self._seconds[job.out] = (monotonic() - start) / len(group)
            if isinstance(result, Exception):
                note_error(job, result)
            self._change(job, "failed" if isinstance(result, Exception) else "finished")

    def outcomes(self) -> tuple[Outcome, ...]:
        """What became of each job, in their order; at any time. `seconds` are its share of those of its group."""
        return tuple(outcome(job, self._states[job.out], self._seconds[job.out]) for job in self._jobs)

    def _change(self, job: Job, state: str) -> None:
        self._states[job.out] = state
        self._on_change(job, state)


@dataclass(frozen=True)
class Cell:
    """The repetitions of one recipe with the same changes.

    Attributes:
        recipe: Its name or file.
        values: The changes.
        runs: Repetitions.
        finished: How many of them are finished; the accuracies are theirs.
        final: After the last epoch; None where no run is finished.
        best: The highest of each run.
    """

    recipe: str
    values: Mapping[str, Any]
    runs: int
    finished: int
    final: Spread | None
    best: Spread | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def cells(planned: Sequence[Job], outcomes: Sequence[Outcome]) -> list[Cell]:
    """The repetitions joined, in the order of their first runs."""
    groups: dict[str, list[tuple[Job, Outcome]]] = {}
    for job, found in zip(planned, outcomes, strict=True):
        groups.setdefault(f"{job.source} {values_of(job)}", []).append((job, found))
    return [_cell(group) for group in groups.values()]


def _cell(group: Sequence[tuple[Job, Outcome]]) -> Cell:
    job, _ = group[0]
    finished = [found for _, found in group if found.state == "finished"]
    final = [o.accuracy for o in finished if o.accuracy is not None]
    best = [o.best_accuracy for o in finished if o.best_accuracy is not None]
    spreads = (Spread.of(final), Spread.of(best)) if final else (None, None)
    return Cell(job.source, values_of(job), len(group), len(finished), *spreads)


def values_of(job: Job) -> dict[str, Any]:
    """What was changed in the recipe, without the seed."""
    return {key: value for key, value in job.overrides.items() if key != SEED}
