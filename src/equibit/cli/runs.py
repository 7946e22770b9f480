"""What the reading verbs are given: a run folder, a recipe, or an exported file."""

from pathlib import Path

from equibit import training
from equibit.errors import InputError
from equibit.training import Run


def is_onnx(target: str) -> bool:
    """Whether the argument names an exported file."""
    return target.endswith(".onnx")


def open_run(target: str, weights: str) -> Run:
    """A run folder's network with its final or best weights.

    Raises:
        InputError: An exported file was given where only a run will do.
    """
    if is_onnx(target):
        raise InputError(f"{target} is an exported file; this needs a run folder, such as runs/NAME.")
    return training.load_run(Path(target), which="best" if weights == "best" else "final")


def use_data(folder: str | None) -> Path | None:
    """The folder of --data, or None for EQUIBIT_DATA."""
    return Path(folder).expanduser() if folder else None
