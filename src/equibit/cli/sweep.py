"""`equibit sweep`: a grid over keys of a recipe, repeated with several seeds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from equibit import recipes, sweep, training
from equibit.cli import output
from equibit.cli.run_list import stoppable
from equibit.cli.train import add_recipe
from equibit.cli.verb import Verb, add_json
from equibit.errors import InputError
from equibit.recipes.grid import SEED, axis, grid
from equibit.run_list import Job, Outcome
from equibit.spread import Spread
from equibit.sweep import Cell, Follow, Start, Sweep
from equibit.tables import render


def _add(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument(
        "--over",
        action="append",
        metavar="KEY=A,B,C",
        help="values that a key takes, such as method.ratio=0.1,0.5 or method.ratio=0.1,...,0.9; may be repeated",
    )
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="seeds of every cell, from train.seed on")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at the same time, on one device")
    parser.add_argument(
        "--replicas",
        type=int,
        default=1,
        metavar="N",
        help="runs trained at once as one stacked network (float, sign, bi_half; pays for very small networks)",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="train on a Ray cluster: auto for that of this machine, local to start one here",
    )
    parser.add_argument("--out", default="runs", metavar="DIR", help="folder of the run folders and their logs")
    add_json(parser)
    add_recipe(parser, words)


def _run(args: Namespace) -> int:
    planned = _planned(args)
    start = None if args.ray is None else _cluster(args.ray)
    trainings = Sweep(planned, parallel=args.jobs, replicas=args.replicas, start=start)
    if args.replicas > 1:
        training.keep_freed_memory()  # for this process, which does nothing else
    try:
        with stoppable(), display(args.recipe) as show:
            trainings.run(show)
    finally:
        outcomes = trainings.outcomes()
        found = sweep.cells(planned, outcomes)
        output.result(_text(found, outcomes), _data(planned, found, outcomes), as_json=args.json)
    return 1 if any(outcome.state == "failed" for outcome in outcomes) else 0


def _cluster(address: str) -> Start:
    """What trains on a Ray cluster, to which this process then belongs."""
    from equibit.integrations import ray_tune  # noqa: PLC0415  (an optional dependency)

    ray_tune.join(address)
    return ray_tune.Cluster


def _planned(args: Namespace) -> list[Job]:
    """Every cell of the grid with every seed; all seeds of a cell one after the other."""
    if args.repeat < 1:
        raise InputError(f"repeat is {args.repeat}; give 1 or more.")
    shipped = recipes.load(args.recipe)
    base = recipes.from_arguments(args, shipped)
    fixed = {key: value for key, value in recipes.changes(shipped, base).items() if key != SEED}
    cells = grid([axis(text) for text in args.over or []])
    seeds = range(base.train.seed, base.train.seed + args.repeat)
    return sweep.jobs(((args.recipe, fixed | cell, seed) for cell in cells for seed in seeds), Path(args.out))


@contextmanager
def display(title: str) -> Iterator[Follow]:
    """Follows a `Sweep`: a bar on a terminal, a plain line for every run that begins or ends elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, left="")

        def show(job: Job | None, state: str, progress: sweep.Progress) -> None:
            if job is not None and state == "failed":
                bar.console.print(f"{job.out.name}: failed; see {job.log}")
            bar.update(task, total=progress.all_epochs, completed=progress.epochs, left=_left(progress))

        yield show


def _line(job: Job | None, state: str, progress: sweep.Progress) -> None:
    if job is not None:
        output.note(f"{job.out.name}: {state}   {_left(progress)}")


def _left(progress: sweep.Progress) -> str:
    """12 of 45 runs, 120 of 450 epochs, 0:12:30 left."""
    seconds = progress.seconds_left
    left = "" if seconds is None else f", {timedelta(seconds=round(seconds))} left"
    return f"{progress.runs} of {progress.all_runs} runs, {progress.epochs} of {progress.all_epochs} epochs{left}"


def _text(cells: Sequence[Cell], outcomes: Sequence[Outcome]) -> str:
    keys = [key for key in cells[0].values if len({str(cell.values[key]) for cell in cells}) > 1]
    columns = (*(key.rpartition(".")[2] for key in keys), "runs", "final mean", "range", "best mean", "range")
    rows = [
        (
            *(sweep.text_of(cell.values[key]) for key in keys),
            f"{cell.finished}/{cell.runs}",
            *_spread(cell.final),
            *_spread(cell.best),
        )
        for cell in cells
    ]
    lines = [render(columns, rows)]
    lines += [f"{outcome.out}: failed; see {outcome.log}" for outcome in outcomes if outcome.state == "failed"]
    left = sum(outcome.state != "finished" for outcome in outcomes)
    lines += [f"{left} of {len(outcomes)} runs are left; the same command goes on with them."] if left else []
    return "\n".join(lines)


def _spread(spread: Spread | None) -> tuple[str, str]:
    if spread is None:
        return "-", "-"
    return output.percent(spread.mean), f"{100 * spread.min:.2f} - {output.percent(spread.max)}"


def _data(planned: Sequence[Job], cells: Sequence[Cell], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    runs = [
        {**outcome.to_dict(), "values": sweep.values_of(job), "seed": job.recipe.train.seed}
        for job, outcome in zip(planned, outcomes, strict=True)
    ]
    return {"runs": runs, "cells": [cell.to_dict() for cell in cells]}


SWEEP = Verb(
    "Trains a recipe with every combination of the values of --over, each --repeat times with another seed, into "
    "OUT/RECIPE[.KEY=VALUE...].sSEED. Called again it trains what is not finished. Any value of the recipe can be "
    "changed for all runs, for example --train.epochs 3. One run that fails stops no other; exit code 1 if one failed.",
    _add,
    _run,
)
