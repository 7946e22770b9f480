"""Training overhead and speed: one step with binary weights beside the same step with float weights.

    python benchmarks/step_time.py [--model resnet18] [--batch 128] [--rounds 7] [--settings plain amp ...]
        [--networks float sign ...] [--out FILE]

A step is the trainer's own: batch gathered and augmented, normalised, forward, backward, optimiser. Every network under
every setting takes its turn in each round, one step each, so that a busy machine slows all of them; the ratio of a
round's two steps is what counts. Settings are those of a recipe's `train` section, joined by `+`: `plain`,
`channels_last`, `amp`, `compile`. Prints medians and the spread as JSON.
"""

import argparse
import json
import statistics
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from equibit import data, methods, recipes, training
from equibit.training import record
from equibit.training.device import open_accelerator
from equibit.training.schedules import Position
from equibit.training.steps import Training

MODELS = {"resnet18": "cifar10-resnet18", "conv2": "cifar10-conv2", "lenet5": "mnist-lenet5"}
XNOR = {"scale": "mean_abs", "ste": "clip", "detach_scale": False, "project": "xnor"}
NETWORKS = {"float": None, **{key: {"name": key} for key in methods.list()}, "sign.xnor": {"name": "sign", **XNOR}}
SWITCHES = ("plain", "channels_last", "amp", "compile")
IMAGES = 2048  # random ones: a step costs the same on any pixels


class Stepper:
    """One network in training, a step at a time."""

    def __init__(self, model: str, network: str, setting: str, batch: int) -> None:
        switches = {f"train.{name}": True for name in setting.split("+") if name != "plain"}
        recipe = recipes.load(f"{MODELS[model]}-float")
        changes = {"method": NETWORKS[network], "data.batch_size": batch, "train.device": "cpu", **switches}
        recipe = recipes.override(recipe, changes)
        entry = data.entry(recipe.data.name)
        pixels = torch.randint(256, (IMAGES, *entry.in_shape), dtype=torch.uint8)
        split = data.TensorSplit(pixels, torch.randint(len(entry.classes), (IMAGES,)))
        channels = entry.in_shape[0]
        dataset = data.Dataset(
            entry.name, split, split, entry.classes, (0.5,) * channels, (0.25,) * channels, entry.in_shape
        )
        recipe = training.loop.complete(recipe, dataset)
        self.training = Training(recipe, dataset, open_accelerator(recipe.train))
        self.training.model.train()
        order = torch.randperm(IMAGES).split(batch)[: IMAGES // batch]
        self.batches = (found for _ in cycle([0]) for found in split.batches(order, augment=recipe.data.augment))

    def seconds(self) -> float:
        """Takes one step and says how long it took."""
        start = time.perf_counter()
        self.training.step(Position(0, 0, self.training.steps), *next(self.batches))
        return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "lowest": ordered[0], "highest": ordered[-1]}


def compare(steppers: dict[tuple[str, str], Stepper], rounds: int, batch: int) -> list[dict[str, Any]]:
    """One row for each network and setting; ratios to the float network of the same setting, round by round."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steppers}
    for turn in range(rounds + 2):
        for key, stepper in steppers.items():
            took = stepper.seconds()
            if turn > 1:  # the first turns allocate and compile
                seconds[key].append(took)
    rows = []
    for (setting, network), taken in seconds.items():
        ratios = [own / base for own, base in zip(taken, seconds[setting, "float"], strict=True)]
        rows.append(
            {
                "setting": setting,
                "network": network,
                "seconds": spread(taken),
                "images_per_second": batch / statistics.median(taken),
                "over_float": spread(ratios),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(MODELS), default="resnet18")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--settings", nargs="+", default=["plain"], help=f"{', '.join(SWITCHES)}, joined by +")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=["float", "sign", "bi_half"])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    training.keep_freed_memory()  # as `equibit train` does
    steppers = {
        (setting, network): Stepper(arguments.model, network, setting, arguments.batch)
        for setting in arguments.settings
        for network in arguments.networks
    }
    found = {
        "model": arguments.model,
        "batch": arguments.batch,
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "hardware": record.hardware("cpu"),
        "versions": record.versions(),
        "commit": record.source_commit(),
        "rows": compare(steppers, arguments.rounds, arguments.batch),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
