"""Trains what a figure needs; apart from `equibit figure`, because it takes torch to load."""

from collections.abc import Sequence
from pathlib import Path

from equibit import sweep
from equibit.cli import output
from equibit.cli.run_list import stoppable
from equibit.cli.sweep import display
from equibit.figures.kind import Kind
from equibit.figures.plan import Panel, trainings


def train(kind: Kind, panels: Sequence[Panel], out: Path, *, jobs: int = 1, replicas: int = 1) -> int:
    """Trains what is not finished below `out`, as `equibit sweep` does, and gives the number of trainings that failed.

    Raises:
        InputError: As of `equibit.sweep.Sweep`, or a folder holds a run of another recipe.
        FileError: A data set is not there.
    """
    planned = sweep.jobs(((t.recipe, t.changes, t.seed) for t in trainings(panels)), out)
    left = [job for job in planned if not job.is_finished()]
    epochs = sum(job.recipe.train.epochs for job in left)
    output.note(
        f"figure {kind.name}: {len(planned)} trainings, of which {len(left)} ({epochs} epochs) are left, in {out}"
    )
    if not left:
        return 0
    trainer = sweep.Sweep(left, parallel=jobs, replicas=replicas)
    with stoppable(), display(f"figure {kind.name}") as show:
        outcomes = trainer.run(show)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        output.note(f"{outcome.out}: failed; see {outcome.log}")
    return len(failed)
