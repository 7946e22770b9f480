"""Batched replicas: a step of several networks at once beside as many steps one after the other.

    python benchmarks/replicas.py [--recipe digits-digits_net-bi_half-1w32a] [--batch 64] [--replicas 2 4 8]
        [--rounds 7] [--device cpu] [--amp] [--out FILE]

A step is the trainer's own: batch gathered and augmented, normalised, forward, backward, optimiser. Every number of
replicas takes its turn in each round, so that a busy machine slows all of them. `share_ms` is the time of a replica:
that of the step divided by their number; `speedup` is how many times less that is than a step alone, per round.
`cpu_ms` is processor time, which other processes touch less. Random images; prints medians as JSON.
"""

import argparse
import json
import statistics
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from equibit import data, recipes, training
from equibit.recipes import Recipe
from equibit.training import record
from equibit.training.device import open_accelerator
from equibit.training.schedules import Position
from equibit.training.stack import Stack
from equibit.training.steps import Training


class Stepper:
    """Some replicas in training, a step of all of them at a time; one trains as `equibit train` does."""

    def __init__(self, recipe: Recipe, replicas: int) -> None:
        accelerator = open_accelerator(recipe.train)
        dataset = random_images(recipe)
        dataset = data.Dataset(**{**vars(dataset), "train": dataset.train.to(accelerator.device)})
        seeds = [recipes.override(recipe, {"train.seed": seed}) for seed in range(replicas)]
        trainings = [Training(training.loop.complete(each, dataset), dataset, accelerator) for each in seeds]
        self.device, self.replicas = accelerator.device, replicas
        self.position = Position(0, 0, trainings[0].steps)
        self.step, self.batches = alone(trainings[0]) if replicas == 1 else together(trainings)

    def times(self) -> tuple[float, float]:
        """Takes one step and says how long it took a replica: seconds, and seconds of this process."""
        self.wait()
        start, start_cpu = time.perf_counter(), time.process_time()
        self.step(self.position, *next(self.batches))
        self.wait()
        return (time.perf_counter() - start) / self.replicas, (time.process_time() - start_cpu) / self.replicas

    def wait(self) -> None:
        """Until the device is idle."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def alone(one: Training) -> tuple[Any, Any]:
    """The step of a single training, and its batches."""
    one.model.train()
    order = torch.randperm(len(one.train_split)).split(one.batch_size)[: one.steps]
    augment = one.recipe.data.augment
    return one.step, (batch for _ in cycle([0]) for batch in one.train_split.batches(order, augment=augment))


def together(trainings: list[Training]) -> tuple[Any, Any]:
    """The step of a stack, and its batches."""
    stack = Stack(trainings)
    stack.network.train()
    return stack.step, (batch for _ in cycle([0]) for batch in stack.batches(0))


def random_images(recipe: Recipe) -> data.Dataset:
    """In the shape of the recipe's data set, ten batches of them: a step costs the same on any pixels."""
    entry = data.entry(recipe.data.name)
    count, channels = 10 * recipe.data.batch_size, entry.in_shape[0]
    images = torch.randint(256, (count, *entry.in_shape), dtype=torch.uint8)
    split = data.TensorSplit(images, torch.randint(len(entry.classes), (count,)))
    return data.Dataset(entry.name, split, split, entry.classes, (0.5,) * channels, (0.25,) * channels, entry.in_shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="digits-digits_net-bi_half-1w32a")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--replicas", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    training.keep_freed_memory()
    changes: dict[str, Any] = {"train.device": args.device, "train.amp": args.amp}
    changes |= {"data.batch_size": args.batch} if args.batch else {}
    recipe = recipes.override(recipes.load(args.recipe), changes)
    steppers = [Stepper(recipe, replicas) for replicas in (1, *args.replicas)]
    for stepper in steppers:  # the first steps find their memory
        stepper.times(), stepper.times()
    rounds = [[stepper.times() for stepper in steppers] for _ in range(args.rounds)]
    result = {
        "recipe": args.recipe,
        "batch": recipe.data.batch_size,
        "amp": args.amp,
        "rounds": args.rounds,
        "hardware": record.hardware(str(steppers[0].device)),
        "versions": record.versions(),
        "commit": record.source_commit(),
        "results": [row(stepper.replicas, [r[0] for r in rounds], [r[i] for r in rounds])
                    for i, stepper in enumerate(steppers)],
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


def row(replicas: int, single: list[tuple[float, float]], times: list[tuple[float, float]]) -> dict[str, Any]:
    ratios = [one[0] / found[0] for one, found in zip(single, times, strict=True)]
    return {
        "replicas": replicas,
        "share_ms": 1000 * statistics.median(wall for wall, _ in times),
        "cpu_ms": 1000 * statistics.median(cpu for _, cpu in times),
        "speedup": statistics.median(ratios),
        "speedup_range": [min(ratios), max(ratios)],
    }


if __name__ == "__main__":
    main()
