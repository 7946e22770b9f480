"""Training overhead: the time of one step with binary weights over the same step with float weights.

    python benchmarks/step_time.py [--model resnet18] [--batch 128] [--rounds 7] [--threads 2] [--out FILE]

The networks take turns, one step each a round, so that a busy machine slows all of them; the ratio of a round's two
steps is what counts. Prints medians and the spread as JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import equibit as eb
from equibit import models, training
from equibit.layers import binary_layers
from equibit.methods.selection import lowest
from equibit.training import record

SHAPES = {"resnet18": (3, 32, 32), "conv2": (3, 32, 32), "lenet5": (1, 28, 28)}
METHODS = ("sign", "bi_half")


def step_of(name: str, method: str | None, batch: int) -> tuple[Callable[[], None], nn.Module]:
    torch.manual_seed(0)
    shape = SHAPES[name]
    model = models.create(name, in_shape=shape)
    if method:
        eb.binarize_(model, method)
    optimizer = torch.optim.SGD(eb.param_groups(model, 5e-4), lr=0.01, momentum=0.9)
    images, labels = torch.randn(batch, *shape), torch.randint(10, (batch,))

    def step() -> None:
        eb.advance(model, 0.5)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step, model


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def selection_seconds(model: nn.Module, rounds: int) -> dict[str, float]:
    """All layers' selection, ours beside a per-filter torch.sort."""
    rows = [layer.latent.detach().flatten(1) for layer in binary_layers(model)]
    ours = [timed(lambda: [lowest(r, r.shape[1] // 2) for r in rows]) for _ in range(rounds)]
    sort = [timed(lambda: [r.sort(dim=1) for r in rows]) for _ in range(rounds)]
    return {"selection_seconds": statistics.median(ours), "sort_seconds": statistics.median(sort)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(SHAPES), default="resnet18")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    training.keep_freed_memory()  # as `equibit train` does
    steps = {m: step_of(arguments.model, m, arguments.batch) for m in (None, *METHODS)}
    seconds: dict[str, list[float]] = {str(m): [] for m in steps}
    for turn in range(arguments.rounds + 1):
        for method, (step, _) in steps.items():
            took = timed(step)
            if turn:  # the first turn allocates
                seconds[str(method)].append(took)
    found = {
        "model": arguments.model,
        "batch": arguments.batch,
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "hardware": record.hardware("cpu"),
        "versions": record.versions(),
        "commit": record.source_commit(),
        "float_seconds": statistics.median(seconds["None"]),
        "methods": {},
        **selection_seconds(steps["bi_half"][1], arguments.rounds),
    }
    for method in METHODS:
        ratios = sorted(b / f for b, f in zip(seconds[method], seconds["None"], strict=True))
        found["methods"][method] = {
            "seconds": statistics.median(seconds[method]),
            "ratio_median": statistics.median(ratios),
            "ratio_lowest": ratios[0],
            "ratio_highest": ratios[-1],
        }
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
