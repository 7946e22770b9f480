"""A sweep over the machines of a Ray cluster, by Ray Tune; extra `ray`."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from equibit import recipes, training
from equibit.errors import DependencyError, InputError
from equibit.run_list import Job, Outcome, note_error, outcome

try:
    import ray
    from ray import tune
except ModuleNotFoundError as error:
    raise DependencyError(f"{error}: install Ray with `pip install 'equibit[ray]'`.") from error


def join(address: str = "local") -> None:
    """Makes this process part of a Ray cluster: by its address, `auto` for that of this machine, `local` for a new one.

    Raises:
        InputError: There is no cluster.
    """
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise InputError(
            f"no Ray cluster answers at {address!r}: {error}. Start one with `ray start --head`."
        ) from None


class Cluster:
    """Trainings on a Ray cluster, one CPU core each and, where the cluster has them and the recipe wants one, a GPU.

    The folder of the run folders must be one that all machines share. Give it to a sweep, after `join`:
    `Sweep(planned, start=Cluster)`.

    Args:
        planned: What `equibit.sweep.jobs` gives.
        on_change: Called with a job and its new state.
    """

    def __init__(self, planned: Sequence[Job], on_change: Callable[[Job, str], object]) -> None:
        self._jobs, self._on_change = planned, on_change
        self._states = ["not started"] * len(planned)
        self._seconds = [0.0] * len(planned)

    def run(self, on_wait: Callable[[], object]) -> None:
        """Trains all that are not finished; one that fails stops no other. `on_wait` is called after every epoch."""
        for place, job in enumerate(self._jobs):
            if job.is_finished():
                self.change(place, "finished")
        left = [place for place, state in enumerate(self._states) if state != "finished"]
        if not left:
            return
        runs = [(job.recipe.to_dict(), str(job.out.resolve())) for job in self._jobs]
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_train, runs=runs), self._resources()),
            param_space={"place": tune.grid_search(left)},
            run_config=tune.RunConfig(
                storage_path=str(self._jobs[0].out.parent.resolve() / ".ray"),
                verbose=0,
                callbacks=[_Follow(self, on_wait)],
            ),
        )
        with redirect_stdout(StringIO()):  # Ray Tune prints there, whatever its verbosity
            results = tuner.fit()
        for result in results:
            place = result.config["place"]
            self._seconds[place] = (result.metrics or {}).get("time_total_s", 0.0)
            if result.error is not None:
                note_error(self._jobs[place], result.error)
            if self._states[place] == "training":  # Ray Tune ends at Ctrl-C by itself
                self.change(place, "stopped")

    def outcomes(self) -> tuple[Outcome, ...]:
        """What became of each job, in their order; at any time."""
        return tuple(outcome(*known) for known in zip(self._jobs, self._states, self._seconds, strict=True))

    def change(self, place: int, state: str) -> None:
        """Notes the new state of a job."""
        self._states[place] = state
        self._on_change(self._jobs[place], state)

    def _resources(self) -> dict[str, float]:
        wanted = any(job.recipe.train.device != "cpu" for job in self._jobs)
        return {"cpu": 1, "gpu": 1 if wanted and ray.cluster_resources().get("GPU", 0) else 0}


def _train(config: Mapping[str, Any], runs: Sequence[tuple[Mapping[str, Any], str]]) -> None:
    """One training, in a process of the cluster."""
    values, out = runs[config["place"]]
    training.train(recipes.from_dict(values, Path(out).name), out, resume=True, on_epoch=_report)


def _report(row: Mapping[str, Any]) -> None:
    tune.report({"epoch": row["epoch"], "test_accuracy": row["test_accuracy"]})


class _Follow(tune.Callback):  # type: ignore[misc]
    """Tells a cluster what happens to its trainings."""

    def __init__(self, cluster: Cluster, on_wait: Callable[[], object]) -> None:
        self._cluster, self._on_wait = cluster, on_wait

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._cluster.change(trial.config["place"], "training")

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
        self._on_wait()

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._cluster.change(trial.config["place"], "finished")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._cluster.change(trial.config["place"], "failed")
