"""Selection by rank over all binary layers of a network: ours beside sorting, kthvalue and plain passes over memory.

    python benchmarks/selection.py [--model resnet18] [--rounds 15] [--threads 1 2] [--out FILE]

Every way takes its turn in each round, and before each round the latents move as in a training step, by noise of a
thousandth of their deviation. Prints medians and the 10th and 90th percentile in milliseconds as JSON:

- sort: `torch.sort` of every filter;  kthvalue: the selection in plain torch;
- kernel: the C++ kernel into memory that is there;  operator: `select`, which allocates its result;
- forward: the effective weight of bi_half with its graph;  forward_backward: and the gradient of the latents;
- read: the sum of all latents, one pass that reads;  read_write: their half, into memory that is there.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import equibit as eb
from equibit import kernels, models, training
from equibit.kernels import _core
from equibit.kernels.torch_ops import lowest, select
from equibit.layers import binary_layers
from equibit.training import record


def latents_of(name: str) -> list[Tensor]:
    torch.manual_seed(0)
    model = models.create(name)
    eb.binarize_(model, "bi_half")
    return [layer.latent.detach().clone().requires_grad_() for layer in binary_layers(model)]


def ways(latents: list[Tensor], threads: int) -> dict[str, Callable[[], object]]:
    rows = [latent.detach().flatten(1) for latent in latents]
    counts = [row.shape[1] // 2 for row in rows]
    out = [torch.empty_like(row) for row in rows]
    arrays = [(row.numpy(), o.numpy()) for row, o in zip(rows, out, strict=True)]
    upstream = [torch.randn_like(latent) for latent in latents]
    methods = [eb.BiHalf() for _ in latents]
    pairs = list(zip(rows, counts, strict=True))

    def kernel() -> None:
        for (values, into), count in zip(arrays, counts, strict=True):
            _core.select(values, into, count, 0, (-1.0, 0.0, 1.0), False, 1, threads)

    def forward() -> list[Tensor]:
        return [method(latent) for method, latent in zip(methods, latents, strict=True)]

    return {
        "sort": lambda: [row.sort(dim=1) for row in rows],
        "kthvalue": lambda: [lowest(row, count) for row, count in pairs],
        "kernel": kernel,
        "operator": lambda: [select(row, count) for row, count in pairs],
        "forward": forward,
        "forward_backward": lambda: torch.autograd.grad(forward(), latents, upstream),
        "read": lambda: [row.sum() for row in rows],
        "read_write": lambda: [torch.mul(row, 0.5, out=o) for row, o in zip(rows, out, strict=True)],
    }


def move(latents: list[Tensor]) -> None:
    with torch.no_grad():
        for latent in latents:
            latent.add_(torch.randn_like(latent), alpha=1e-3 * float(latent.std()))


def measure(latents: list[Tensor], threads: int, rounds: int) -> dict[str, dict[str, float]]:
    torch.set_num_threads(threads)
    calls = ways(latents, threads)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        move(latents)
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:  # the first round allocates
                seconds[name].append(time.perf_counter() - start)
    percentiles = {name: 1e3 * np.percentile(taken, (50, 10, 90)) for name, taken in seconds.items()}
    return {
        name: dict(zip(("median_ms", "p10_ms", "p90_ms"), found.tolist(), strict=True))
        for name, found in percentiles.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    training.keep_freed_memory()  # as `equibit train` does
    latents = latents_of(arguments.model)
    found = {
        "model": arguments.model,
        "weights": sum(latent.numel() for latent in latents),
        "filters": sum(len(latent) for latent in latents),
        "rounds": arguments.rounds,
        "cpu": kernels.cpu_name(),
        "kernel": kernels.active(),
        "versions": record.versions(),
        "commit": record.source_commit(),
        "threads": {str(threads): measure(latents, threads, arguments.rounds) for threads in arguments.threads},
    }
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
