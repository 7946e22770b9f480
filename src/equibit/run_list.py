"""A list of trainings inside a bounded window of time on one device.

Every training is a process of its own (`equibit train ... --resume`), so one that fails stops no other, and one that
the end of the window stops goes on in the next window from its last finished epoch.
"""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from traceback import format_exception
from typing import Any

import yaml

from equibit import recipes
from equibit.errors import EquibitError, FileError, FormatError, InputError
from equibit.recipes import Recipe
from equibit.training.folder import RunFolder

_COMMAND = (sys.executable, "-m", "equibit.cli")
_POLL = 0.2  # s
_GRACE = 60.0  # s between the request to stop and the kill


@dataclass(frozen=True)
class Job:
    """One training of the list.

    Attributes:
        source: The recipe as the list names it.
        overrides: What the list changes in it, by dotted key.
        recipe: The recipe with the changes.
        out: Its run folder.
    """

    source: str
    overrides: Mapping[str, Any]
    recipe: Recipe
    out: Path

    @property
    def log(self) -> Path:
        """What the training printed, in this window and earlier ones."""
        return self.out.with_name(f"{self.out.name}.log")

    @property
    def words(self) -> list[str]:
        """The arguments of `equibit` for this training."""
        # A string goes as it is: below `method` and `activation` quotation marks would be part of it.
        values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.overrides.items()}
        changes = [f"--{key}={value}" for key, value in values.items()]
        return ["train", self.source, *changes, "--out", str(self.out), "--resume", "--json"]

    def is_finished(self) -> bool:
        """Whether the folder holds this very training, finished; the data set may have filled in what was open."""
        folder = RunFolder(self.out)
        if not folder.summary.exists():
            return False
        stored, given = recipes.load(folder.config).to_dict(), self.recipe.to_dict()
        for section, key in (("model", "in_shape"), ("data", "mean"), ("data", "std")):
            given[section][key] = given[section][key] or stored[section][key]
        return {**given, "name": stored["name"]} == stored


@dataclass(frozen=True)
class Outcome:
    """What became of one training.

    Attributes:
        recipe: Its name or file.
        out: The run folder.
        state: finished, stopped (the window was over), failed, or not started.
        epochs: Finished epochs, in this window and earlier ones.
        accuracy: On the test set after the last of them.
        best_accuracy: The highest of them.
        seconds: In this window.
        log: What it printed.
    """

    recipe: str
    out: str
    state: str
    epochs: int
    accuracy: float | None
    best_accuracy: float | None
    seconds: float
    log: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def outcome(job: Job, state: str, seconds: float) -> Outcome:
    """What became of a job, with the figures of its run folder."""
    accuracies = _accuracies(job)
    return Outcome(
        recipe=job.source,
        out=str(job.out),
        state=state,
        epochs=len(accuracies),
        accuracy=accuracies[-1] if accuracies else None,
        best_accuracy=max(accuracies, default=None),
        seconds=seconds,
        log=str(job.log),
    )


def note_error(job: Job, error: Exception) -> None:
    """Writes an error into the job's log, as a training in a process of its own does."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as log:
        log.write(f"equibit: {error}\n" if isinstance(error, EquibitError) else "".join(format_exception(error)))


def epochs_done(job: Job) -> int:
    """Finished epochs in its run folder."""
    return len(_accuracies(job))


def _accuracies(job: Job) -> list[float]:
    """On the test set, after every finished epoch."""
    metrics = RunFolder(job.out).metrics
    rows = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    return [json.loads(row)["test_accuracy"] for row in rows]


def read(path: str | os.PathLike[str], out: Path) -> list[Job]:
    """The list in a YAML file, every recipe and change checked.

    Args:
        path: A list; an entry is a recipe, or a mapping with `recipe`, perhaps `out`, and changes such as
            `train.epochs: 3`.
        out: Folder of the run folders, which are named by `out` or by the recipe.

    Raises:
        FileError: The file cannot be read.
        FormatError: It is no YAML list.
        InputError: An entry is wrong, or two of them share a run folder.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read the list {path}: {error}.") from None
    except yaml.YAMLError as error:
        raise FormatError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(entries, list) or not entries:
        raise FormatError(f"{path} holds no list of runs; write one line `- RECIPE` for each.")
    jobs = [_job(entry, f"{path}, run {number}", out) for number, entry in enumerate(entries, 1)]
    for job in jobs:
        same = [other for other in jobs if other.out == job.out]
        if len(same) > 1:
            raise InputError(f"{path}: {len(same)} runs would write to {job.out}; give each its own `out: NAME`.")
    return jobs


def _job(entry: object, where: str, out: Path) -> Job:
    values = {"recipe": entry} if isinstance(entry, str) else entry
    if not isinstance(values, dict) or not isinstance(values.get("recipe"), str):
        raise InputError(f"{where}: {entry!r} is neither a recipe nor a mapping with `recipe: NAME`.")
    changes = {str(key): value for key, value in values.items() if key not in ("recipe", "out")}
    try:
        recipe = recipes.override(recipes.load(values["recipe"]), changes)
    except EquibitError as error:
        raise type(error)(f"{where}: {error}") from None
    return Job(values["recipe"], changes, recipe, out / str(values.get("out", recipe.name)))


class Window:
    """The trainings of a list under way.

    Args:
        jobs: What `read` gives; started in this order.
        parallel: How many train at once. Each gets its share of the cores, unless `OMP_NUM_THREADS` is set.
        on_change: Called with a job and its new state.

    Raises:
        InputError: `parallel` is below 1.
    """

    def __init__(
        self, jobs: Sequence[Job], parallel: int = 1, on_change: Callable[[Job, str], object] | None = None
    ) -> None:
        if parallel < 1:
            raise InputError(f"jobs is {parallel}; give 1 or more.")
        self.parallel = parallel
        self._trainings = [_Training(job, on_change or (lambda _job, _state: None)) for job in jobs]

    def run(self, seconds: float = math.inf, on_wait: Callable[[], object] = lambda: None) -> None:
        """Trains until all jobs are over or the window is; those still training then are stopped.

        Ctrl-C (KeyboardInterrupt) stops them too, and goes on to the caller.

        Args:
            seconds: Length of the window.
            on_wait: Called several times a second.
        """
        deadline = time.monotonic() + seconds
        waiting, running = list(self._trainings), list[_Training]()
        try:
            while (waiting or running) and time.monotonic() < deadline:
                while waiting and len(running) < self.parallel:
                    training = waiting.pop(0)
                    if training.start(self.parallel):
                        running.append(training)
                time.sleep(_POLL)
                on_wait()
                running = [training for training in running if not training.ended()]
        finally:
            _stop(running)

    def outcomes(self) -> tuple[Outcome, ...]:
        """What became of each job, in the order of the list; at any time."""
        return tuple(training.outcome() for training in self._trainings)


def _stop(trainings: Sequence["_Training"]) -> None:
    """Asks the processes to end, and ends those that do not."""
    for training in trainings:
        training.interrupt()
    last = time.monotonic() + _GRACE
    try:
        left = list(trainings)
        while left and time.monotonic() < last:
            time.sleep(_POLL)
            left = [training for training in left if not training.ended()]
    finally:
        for training in trainings:
            training.kill()


class _Training:
    """A job's state, and its process while it trains."""

    def __init__(self, job: Job, on_change: Callable[[Job, str], object]) -> None:
        self.job, self._on_change = job, on_change
        self.state, self._started, self._ended = "not started", 0.0, 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, parallel: int) -> bool:
        """Starts the process; False if there is nothing left to train."""
        if self.job.is_finished():
            self._change("finished")
            return False
        environment = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // parallel, 1)), **os.environ}
        self.job.out.parent.mkdir(parents=True, exist_ok=True)
        with self.job.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_COMMAND, *self.job.words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                process_group=0,  # Ctrl-C on the terminal reaches it through `interrupt` only, so once
            )
        self._started = time.monotonic()
        self._change("training")
        return True

    def ended(self) -> bool:
        """Whether the process is over; notes how it ended."""
        if self._process is None or self._process.poll() is None:
            return False
        if self.state in ("training", "stopping"):
            self._ended = time.monotonic()
            asked = self.state == "stopping"
            self._change("finished" if self._process.returncode == 0 else "stopped" if asked else "failed")
        return True

    def interrupt(self) -> None:
        """Asks the process to end, as Ctrl-C does: its finished epochs are on disk."""
        if not self.ended() and self._process is not None:
            self.state = "stopping"
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Ends the process if it has not ended: whatever it was writing is whole or absent."""
        if not self.ended() and self._process is not None:
            self._process.kill()
            self._process.wait()
            self.ended()

    def outcome(self) -> Outcome:
        """The figures, from the run folder."""
        return outcome(self.job, self.state, max(self._ended - self._started, 0.0))

    def _change(self, state: str) -> None:
        self.state = state
        self._on_change(self.job, state)
