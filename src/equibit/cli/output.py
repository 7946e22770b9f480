"""Printing: results go to standard output, everything else to standard error."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def result(text: str, data: Any, *, as_json: bool) -> None:
    """Prints a result: the text for people, or the data as JSON."""
    print(json.dumps(data, indent=2) if as_json else text)


def note(text: str) -> None:
    """A line for people beside the result."""
    print(text, file=sys.stderr, flush=True)


def percent(fraction: float | None) -> str:
    """0.9912 -> 99.12 %."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One epoch's metrics as a plain line."""
    flips = "" if row.get("flip_rate") is None else f"  flips {percent(row['flip_rate'])}"
    return (
        f"epoch {row['epoch']}/{epochs}  loss {row['train_loss']:.4f}  test {percent(row['test_accuracy'])}"
        f"{flips}  {row['seconds']:.1f} s"
    )


class EpochReport:
    """Follows a training: a progress bar on a terminal, a plain line an epoch elsewhere."""

    def __init__(self, title: str, epochs: int, bar: Progress | None) -> None:
        self.title, self.epochs, self.bar = title, epochs, bar
        self.task = bar.add_task(title, total=epochs, state="") if bar else None

    def __call__(self, row: dict[str, Any]) -> None:
        """Shows a finished epoch."""
        if self.bar is not None and self.task is not None:
            state = f"test {percent(row['test_accuracy'])}"
            self.bar.update(self.task, completed=row["epoch"], state=state)
        else:
            note(f"{self.title}  {epoch_line(row, self.epochs)}")


@contextmanager
def progress() -> Iterator[Progress | None]:
    """A progress display where standard error is a terminal, else None."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        yield bar
