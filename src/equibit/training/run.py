"""A finished or interrupted run, read back."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from equibit import recipes
from equibit.errors import FileError, unknown
from equibit.recipes import Recipe
from equibit.training.checkpoint import load_into, load_state, load_weights
from equibit.training.folder import RunFolder


@dataclass(frozen=True, eq=False)
class Run:
    """A run: the recipe, its trained network in eval mode, and what was measured.

    Attributes:
        path: The run folder.
        recipe: Complete, with the data set's mean, std and image shape.
        model: Float, or binarised with its latent weights.
        summary: The content of `summary.json`, None while the run is not finished.
        metrics: One row per finished epoch.
        layers: One line of `layers.jsonl` per finished epoch; those that were trained before it was recorded have none.
    """

    path: Path
    recipe: Recipe
    model: nn.Module
    summary: dict[str, Any] | None
    metrics: list[dict[str, Any]]
    layers: list[dict[str, Any]]


def load_run(path: str | os.PathLike[str], which: Literal["final", "best"] = "final") -> Run:
    """Reads a run folder.

    Args:
        path: The folder that `train` wrote.
        which: Weights of the last finished epoch, or of the epoch with the highest test accuracy.

    Raises:
        FileError: There is no run, or no epoch of it is finished.
        FormatError: A file is damaged.
    """
    if which not in ("final", "best"):
        raise unknown("weights", which, ("best", "final"))
    folder = RunFolder(Path(path))
    if not folder.config.exists():
        raise FileError(f"{folder.path} is not a run folder: it has no config.yaml. `equibit train` makes one.")
    if not folder.state.exists():
        raise FileError(
            f"no epoch of the run {folder.path} is finished; continue it with `equibit train ... --resume`."
        )
    recipe = recipes.load(folder.config)
    state = load_state(folder.state)
    with torch.random.fork_rng(devices=[]):
        model = recipes.build(recipe)
    source = folder.state if which == "final" else folder.best
    load_into(model, state.weights if which == "final" else load_weights(folder.best), source)
    summary = folder.read_summary() if folder.summary.exists() else None
    return Run(folder.path, recipe, model.eval(), summary, state.history, state.layers)
