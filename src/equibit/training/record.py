"""What a run says about itself: bits per epoch, machine, versions, summary."""

import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import equibit
from equibit import analysis, kernels
from equibit.analysis import Summary
from equibit.recipes import Recipe


def bit_statistics(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float | None]:
    """Mean over all filters of the share of +1 and of its entropy, and the share of weights that changed.

    All None for a network without binary layers.
    """
    if not after:
        return {"bit_ratio": None, "bit_entropy": None, "flip_rate": None}
    return {
        "bit_ratio": _mean_over_filters([analysis.bit_ratio(w, per="filter") for w in after.values()]),
        "bit_entropy": _mean_over_filters([analysis.bit_entropy(w, per="filter") for w in after.values()]),
        "flip_rate": analysis.flip_rate(before, after),
    }


def _mean_over_filters(layers: Sequence[Tensor]) -> float:
    return float(torch.cat([layer.flatten() for layer in layers]).mean())


def best_row(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first epoch with the highest test accuracy."""
    return max(history, key=lambda row: row["test_accuracy"])  # max keeps the first of equals


def summarize(
    recipe: Recipe,
    size: Summary,
    history: Sequence[Mapping[str, Any]],
    device: str,
    commit: str | None,
    skipped: int,
) -> dict[str, Any]:
    """The content of `summary.json` of a finished run.

    Args:
        recipe: The complete recipe.
        size: `analysis.summary` of its network.
        history: The rows of metrics.
        device: That trained.
        commit: Of the code that trained.
        skipped: Images that could not be read and were left out (`data.broken: skip`).
    """
    best = best_row(history)
    return {
        "recipe": recipe.name,
        "method": recipe.method["name"] if recipe.method else "float",
        "final_accuracy": history[-1]["test_accuracy"],
        "best_accuracy": best["test_accuracy"],
        "best_epoch": best["epoch"],
        "test_n": history[-1]["test_n"],
        "skipped_images": skipped,
        "epochs": len(history),
        "seed": recipe.train.seed,
        "seconds": math.fsum(row["seconds"] for row in history),
        "parameters": size.parameters,
        "binary_parameters": size.binary_parameters,
        "packed_bytes": size.packed_bytes,
        "hardware": hardware(device),
        "versions": versions(),
        "commit": commit,
    }


def hardware(device: str) -> dict[str, Any]:
    """CPU, its cores, torch's threads, our kernel level, and the device that trained."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return {
        "cpu": kernels.cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernel": kernels.active(),
        "device": name,
    }


def versions() -> dict[str, str]:
    """Versions that a measured number depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "equibit": equibit.__version__,
    }


def source_commit() -> str | None:
    """Git commit of the checkout this package runs from, `-dirty` if its sources differ; None elsewhere."""
    package = Path(__file__).parents[1]
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None  # installed, perhaps below somebody else's checkout
    commit = _git(package, "rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and _git(package, "status", "--porcelain", "--", ".") else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
