"""A linear layer on one input: 1-bit weights beside torch, and beside plain reads of as many bytes.

    python benchmarks/linear.py [--sizes 1024 4096 8192 16384] [--threads 1] [--rounds 31] [--out FILE]

Such a layer reads every weight once, so memory bounds it. Square layers with random weights -1 and +1: ours with float
inputs (1w32a) and with their signs (1w1a), torch in float32 and bfloat16; all compute the same (asserted, 1w1a to the
bit). `read` is the sum of as many bytes as our weights have, `memory` that of an array larger than any cache: the roof.
In each round every one runs twice: once in turn, when the caches hold what the others left, and at once again. Prints a
table of medians; --out writes them with the 10th and 90th percentile and bytes a second as JSON.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equibit import bits, kernels
from equibit.kernels import _core
from equibit.tables import render
from equibit.training import record

SIZES = (1024, 4096, 8192, 16384)
LARGE = 2**29  # bytes: more than any cache, 16 times that of a server's socket
PLACE = (1, 1, 1)


class Way:
    """One way to do it: what it reads, and the seconds that its calls took."""

    def __init__(self, call: Callable[[], Tensor], read: int, weights: int = 0) -> None:
        self.call, self.read, self.weights = call, read, weights
        self.seconds: dict[str, list[float]] = {"in_turn": [], "again": []}

    def run(self, *, keep: bool) -> None:
        """Calls twice; `keep` says whether the times count."""
        for turn in self.seconds.values():
            start = time.perf_counter()
            self.call()
            if keep:
                turn.append(time.perf_counter() - start)

    def result(self, hertz: float) -> dict[str, Any]:
        """What the calls took, in milliseconds and as rates; bytes are those of the weights."""
        found: dict[str, Any] = {"bytes": self.read}
        for turn, seconds in self.seconds.items():
            median, p10, p90 = np.percentile(seconds, (50, 10, 90)).tolist()
            found[turn] = {
                "median_ms": 1e3 * median,
                "p10_ms": 1e3 * p10,
                "p90_ms": 1e3 * p90,
                "gigabytes_per_second": 1e-9 * self.read / median,
                "macs_per_cycle": self.weights / (median * hertz),
            }
        return found


def ours(rows: np.ndarray[Any, Any], x: Tensor, kind: str, threads: int) -> tuple[Callable[[], Tensor], str]:
    """The layer with packed weights, and which kernel takes it."""
    size = len(rows)
    layer = _core.Convolution(
        rows, None, np.ones(size, np.float32), None, None, kernel=PLACE, stride=PLACE, pads_begin=(0, 0, 0),
        pads_end=(0, 0, 0), channels=size, input=kind,
    )  # fmt: skip
    given, y = x.numpy(), np.empty((1, size, 1, 1), np.float32)

    def call() -> Tensor:
        layer.run(given, None, y, 1, PLACE, threads)
        return torch.from_numpy(y).reshape(1, size)

    return call, layer.explain(1, PLACE)


def ways(size: int, threads: int) -> tuple[dict[str, Way], dict[str, str]]:
    """Everything that is timed for one size, checked, and our kernels."""
    rng = np.random.default_rng(size)
    rows = rng.integers(0, 256, (size, size // 8), np.uint8)
    weight = torch.from_numpy(_core.unpack_f32(rows, size))
    x = torch.from_numpy(rng.standard_normal((1, size), np.float32))
    half, half_x = weight.bfloat16(), x.bfloat16()
    real, real_kernel = ours(rows, x.reshape(1, size, 1, 1), "real", threads)
    sign, sign_kernel = ours(rows, x.reshape(1, size, 1, 1), "sign", threads)
    expected = x @ weight.T
    torch.testing.assert_close(real(), expected, rtol=1e-4, atol=1e-6 * size)  # float32 sums in another order
    assert torch.equal(sign(), torch.where(x >= 0, 1.0, -1.0) @ weight.T)
    as_many = torch.zeros(size * size // 32)
    macs, packed = size * size, bits.row_bytes(size) * size
    found = {
        "equibit 1w32a": Way(real, packed, macs),
        "equibit 1w1a": Way(sign, packed, macs),
        "torch": Way(lambda: torch.nn.functional.linear(x, weight), 4 * macs, macs),
        "torch bf16": Way(lambda: torch.nn.functional.linear(half_x, half), 2 * macs, macs),
        "read": Way(as_many.sum, packed),
    }
    return found, {"equibit 1w32a": real_kernel, "equibit 1w1a": sign_kernel}


def measure(sizes: list[int], threads: int, rounds: int) -> dict[str, Any]:
    """Medians, spreads and rates of every way at every size."""
    large = torch.zeros(LARGE // 4)
    memory = Way(large.sum, LARGE)
    by_size = {size: ways(size, threads) for size in sizes}
    hertz = 0.0
    for turn in range(rounds + 1):
        hertz = max(hertz, _core.clock_rate())
        memory.run(keep=turn > 0)
        for way in (way for found, _ in by_size.values() for way in found.values()):
            way.run(keep=turn > 0)  # the first round makes tables and memory
    layers = []
    for size, (found, named) in by_size.items():
        results = [{"way": name, "kernel": named.get(name)} | way.result(hertz) for name, way in found.items()]
        layers.append({"size": size, "results": results})
    return {"gigahertz": 1e-9 * hertz, "memory": memory.result(hertz), "linear": layers}


def table(found: Mapping[str, Any]) -> str:
    """Times in turn (again), speed over torch and bytes a second, in turn."""
    rows = []
    for layer in found["linear"]:
        times = {r["way"]: r for r in layer["results"]}
        base = times["torch"]["in_turn"]["median_ms"]
        for name, result in times.items():
            turn, again = result["in_turn"], result["again"]
            speed = "-" if name == "read" else f"{base / turn['median_ms']:.1f}x"
            rate = f"{turn['gigabytes_per_second']:.1f} ({again['gigabytes_per_second']:.1f})"
            took = f"{turn['median_ms']:.4g} ({again['median_ms']:.4g})"
            rows.append((str(layer["size"]), name, took, speed, rate, f"{turn['macs_per_cycle']:.0f}"))
    roof = found["memory"]["in_turn"]["gigabytes_per_second"]
    text = render(("size", "way", "ms in turn (again)", "speed", "GB/s", "MAC a cycle"), rows)
    return f"{text}\nmemory: {roof:.1f} GB/s, {found['threads']} thread(s), {found['kernel']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="multiples of 64")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = {
        "cpu": kernels.cpu_name(),
        "kernel": kernels.active(),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "versions": record.versions(),
        "commit": record.source_commit(),
        **measure(arguments.sizes, arguments.threads, arguments.rounds),
    }
    print(table(found))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
