"""`equibit run-list`: a list of trainings inside a window of time."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from equibit import run_list
from equibit.cli import output
from equibit.cli.verb import Verb, add_json
from equibit.errors import InputError
from equibit.run_list import Outcome, Window
from equibit.tables import render


def _add(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("file", help="a YAML list of recipes, or of mappings of `recipe`, `out` and changes")
    parser.add_argument("--minutes", type=float, required=True, help="length of the window")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at the same time, on one device")
    parser.add_argument("--out", default="runs", help="folder of the run folders and their logs")
    add_json(parser)


def _run(args: Namespace) -> int:
    if not args.minutes > 0:
        raise InputError(f"minutes is {args.minutes:g}; give more than 0.")
    jobs = run_list.read(args.file, Path(args.out))
    window = Window(jobs, args.jobs, lambda job, state: output.note(f"{job.out.name}: {state}"))
    try:
        with stoppable():
            window.run(60 * args.minutes)
    finally:
        outcomes = window.outcomes()
        output.result(_table(outcomes), {"runs": [outcome.to_dict() for outcome in outcomes]}, as_json=args.json)
    return 1 if any(outcome.state == "failed" for outcome in outcomes) else 0


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM counts as Ctrl-C, and Ctrl-C counts even where a script's background job would ignore it."""
    old = {kind: signal.signal(kind, signal.default_int_handler) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in old.items():
            signal.signal(kind, handler)


def _table(outcomes: Sequence[Outcome]) -> str:
    rows = [(o.out, o.state, o.epochs, output.percent(o.accuracy), f"{o.seconds:.0f} s", o.log) for o in outcomes]
    left = sum(outcome.state in ("stopped", "not started") for outcome in outcomes)
    text = render(("run", "state", "epochs", "accuracy", "time", "log"), rows)
    return f"{text}\n{left} of {len(outcomes)} runs are left; the same command goes on with them." if left else text


RUN_LIST = Verb(
    "Trains the runs of a list, in its order, until the window is over; what is then unfinished goes on when the "
    "command is called again. One that fails stops no other; exit code 1 if one failed. The file: "
    "`- mnist-lenet5-float`, or `- {recipe: mnist-lenet5-float, out: longer, train.epochs: 40}`.",
    _add,
    _run,
)
