"""Run folders without a training: the config of a real recipe, and metrics and layers that a formula gives."""

import functools
import json
import math
from dataclasses import replace

import numpy as np

from equibit import recipes

LAYERS = {"conv2": (64, 36_864), "fc1": (256, 4_194_304)}  # filters, weights


def record(folder, recipe, changes=None, *, seed=0, epochs=None, layers=True, level=0.5):
    """Writes what a finished run of a shipped recipe leaves that figures read; `epochs`: stopped after so many.

    `level` is what the accuracy tends to; every number follows from the arguments.
    """
    changed = _changed(recipe, json.dumps(changes or {}))
    changed = replace(changed, train=replace(changed.train, seed=seed))
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(changed.to_yaml())
    numbers = range(1, (changed.train.epochs if epochs is None else epochs) + 1)
    noise = np.random.default_rng(seed)
    rows = [_metrics(changed, epoch, level + 0.01 * noise.standard_normal()) for epoch in numbers]
    _write(folder / "metrics.jsonl", rows)
    if layers and changed.method is not None:
        _write(folder / "layers.jsonl", [_layers(changed, epoch) for epoch in numbers])
    if epochs is None:
        summary = {"commit": "0" * 40, "hardware": {"cpu": "none"}, "versions": {"torch": "0"}}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@functools.cache
def _changed(recipe, changes):
    return recipes.override(recipes.load(recipe), json.loads(changes))


def _write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _metrics(recipe, epoch, level):
    accuracy = level * (1 - math.exp(-epoch / 2))
    relaxed = {"relaxed_accuracy": accuracy + 0.1 / epoch} if _name(recipe) == "group_transform" else {}
    return {
        "epoch": epoch,
        "lr": recipe.optimizer.lr,
        "train_loss": 2 - accuracy,
        "train_accuracy": accuracy + 0.02,
        "test_loss": 2.1 - accuracy,
        "test_accuracy": accuracy,
        "test_n": 10_000,
        "bit_ratio": 0.49,
        "bit_entropy": 1.0 if _name(recipe) == "bi_half" else 1 - 0.005 / epoch,
        "flip_rate": 0.1 / epoch,
        **relaxed,
        "seconds": 1.0,
    }


def _layers(recipe, epoch):
    bins = -4 + 0.125 * (np.arange(64) + 0.5)
    shape = np.exp(-np.abs(bins) * math.sqrt(2)) if recipe.optimizer.weight_decay else np.exp(-(bins**2) / 2)
    values = {
        "latent_histogram": None,
        "laplace_fit": 1.0 + 0.01 * epoch,
        "gauss_fit": 1.02,
        "p_star": 0.5 - 0.01 * epoch,
        "activation_entropy": 0.9 + 0.01 * epoch / recipe.train.epochs,
        "residual": 0.5 / epoch if _name(recipe) == "group_transform" else None,
    }
    return {
        "epoch": epoch,
        "layers": {
            name: {
                **values,
                "filters": filters,
                "weights": weights,
                "latent_histogram": np.round(weights * shape / shape.sum()).astype(int).tolist(),
            }
            for name, (filters, weights) in LAYERS.items()
        },
    }


def _name(recipe):
    return recipe.method["name"] if recipe.method else "float"
