"""Speed of the kernels per layer: multiply-accumulates a cycle, for every kind of input and level of this CPU.

    python benchmarks/kernels.py [--networks resnet18 vgg_small ...] [--inputs sign real int8] [--levels avx2 ...]
                                 [--rounds 31] [--threads 1] [--json] [--out FILE]

The layers are the convolutions that `binarize_` makes binary, with batch 1, random weights and inputs, zero padding and
a scale per filter. Input and output are floats, so that a time holds all that a layer costs: signs packed, values
rounded, panels gathered, sums scaled. In each round every layer runs twice with each kernel: once in turn, when the
caches hold what the others left, and at once again. A cycle is that of the core's clock, measured in the same process
by a chain of additions.

Prints tables of medians, in turn (again), above the rate that the arithmetic of a tile alone allows; `--json` prints
everything, with the 10th and 90th percentile, and `--out` writes it.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import equibit as eb
from equibit import bits, kernels, models
from equibit.kernels import _core
from equibit.layers import binary_layers
from equibit.tables import render
from equibit.training import record

NETWORKS = {
    "resnet18": ("resnet18", (3, 32, 32)),
    "resnet18_224": ("resnet18", (3, 224, 224)),
    "vgg_small": ("vgg_small", (3, 32, 32)),
}
INPUTS = ("sign", "real", "int8")
# Multiply-accumulates a cycle of a core with two 512-bit or four 256-bit operations, and one 64-byte or two 32-byte
# loads, a cycle (Zen 4); multiplying floats one by one gives 16. sign: 2.5 operations on a word with an instruction for
# popcount, 3.75 without, 5.5 with two operands; real: a load of 16 floats stands for 4 inputs, int8: one of 32 int16.
CEILINGS = {
    "sign": {"avx512_icl": 410, "avx512_vnni": 273, "avx512": 273, "avx2": 186},
    "real": {"avx512_icl": 64, "avx512_vnni": 64, "avx512": 64, "avx2": 64},
    "int8": {"avx512_icl": 128, "avx512_vnni": 128, "avx512": 128, "avx2": 128},
}


@dataclass(frozen=True)
class Shape:
    """A convolution of square maps."""

    channels: int
    filters: int
    kernel: int
    stride: int
    padding: int
    size: int  # of the input

    @property
    def output_size(self) -> int:
        """Places along an axis of the output."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those with padding too."""
        return self.channels * self.filters * (self.kernel * self.output_size) ** 2

    def __str__(self) -> str:
        return f"{self.channels}-{self.filters} {self.kernel}x{self.kernel}/{self.stride} {self.size}x{self.size}"


def shapes_of(network: str) -> Counter[Shape]:
    """The binary convolutions of a network and how often each occurs, in the order in which they run."""
    name, in_shape = NETWORKS[network]
    model = models.create(name, in_shape=in_shape)
    eb.binarize_(model, "sign")
    found: Counter[Shape] = Counter()

    def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(layer, nn.Conv2d):
            sizes = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
            found[Shape(layer.in_channels, layer.out_channels, *sizes, inputs[0].shape[-1])] += 1

    for binary in binary_layers(model):
        binary.module.register_forward_pre_hook(note)
    with torch.no_grad():
        model.eval()(torch.zeros(1, *in_shape))
    return found


class Arrays:
    """Weights, input and output of a layer, the same for all its kernels."""

    def __init__(self, shape: Shape, rng: np.random.Generator) -> None:
        maps, taps = (1, shape.channels, shape.size, shape.size), (shape.kernel, shape.kernel)
        weight = rng.choice(np.array([-1, 1], np.int8), (shape.filters, shape.channels, *taps))
        self.bits = bits.pack_bits(bits.filters_to_rows(weight))
        self.x: NDArray[np.float32] = rng.standard_normal(maps, np.float32)
        self.y = np.empty((1, shape.filters, shape.output_size, shape.output_size), np.float32)


class Timed:
    """One layer with one kernel and the seconds that its calls took."""

    def __init__(self, shape: Shape, arrays: Arrays, kind: str, level: str) -> None:
        side, pad = (1, shape.kernel, shape.kernel), (0, shape.padding, shape.padding)
        self.layer = _core.Convolution(
            arrays.bits,
            None,
            np.ones(shape.filters, np.float32),
            None,
            None,
            kernel=side,
            stride=(1, shape.stride, shape.stride),
            pads_begin=pad,
            pads_end=pad,
            channels=shape.channels,
            input=kind,
            input_scale=0.03,
            level=level,
        )
        self.shape, self.arrays, self.kind, self.level = shape, arrays, kind, level
        self.size = (1, shape.size, shape.size)
        self.seconds: dict[str, list[float]] = {"in_turn": [], "again": []}

    def run(self, threads: int, *, keep: bool) -> None:
        """Runs the layer twice; `keep` says whether the times count."""
        for turn in self.seconds.values():
            start = time.perf_counter()
            self.layer.run(self.arrays.x, None, self.arrays.y, 1, self.size, threads)
            if keep:
                turn.append(time.perf_counter() - start)

    def result(self, hertz: float) -> dict[str, Any]:
        """What the calls took, in milliseconds and as a rate."""
        found: dict[str, Any] = {"input": self.kind, "level": self.level, "kernel": self.layer.explain(1, self.size)}
        for turn, seconds in self.seconds.items():
            median, p10, p90 = np.percentile(seconds, (50, 10, 90)).tolist()
            found[turn] = {
                "macs_per_cycle": self.shape.macs / (median * hertz),
                "median_ms": 1e3 * median,
                "p10_ms": 1e3 * p10,
                "p90_ms": 1e3 * p90,
            }
        return found | {"ceiling": CEILINGS[self.kind].get(self.level)}


def measure(shapes: Iterable[Shape], arguments: argparse.Namespace) -> tuple[dict[Shape, list[Timed]], float]:
    """Every layer with a kernel for each kind of input and level, in the same order for all, and the clock in hertz."""
    rng = np.random.default_rng(0)
    layers = {}
    for shape in shapes:
        arrays = Arrays(shape, rng)
        layers[shape] = [Timed(shape, arrays, kind, level) for kind in arguments.inputs for level in arguments.levels]
    hertz = 0.0
    for turn in range(arguments.rounds + 1):
        hertz = max(hertz, _core.clock_rate())  # whatever else runs only slows the chain of additions
        for kernel in zip(*layers.values(), strict=True):
            for timed in kernel:
                timed.run(arguments.threads, keep=turn > 0)  # the first round makes tables and memory
    return layers, hertz


def whole(counts: Counter[Shape], layers: dict[Shape, list[Timed]], hertz: float) -> list[dict[str, Any]]:
    """What the binary layers of a network take together, for every kind of input and level."""
    macs = sum(shape.macs * times for shape, times in counts.items())
    totals = []
    for place, timed in enumerate(next(iter(layers.values()))):
        medians = {shape: np.median(layers[shape][place].seconds["in_turn"]) for shape in counts}
        seconds = float(sum(medians[shape] * times for shape, times in counts.items()))
        rate = macs / (seconds * hertz)
        totals.append({"input": timed.kind, "level": timed.level, "ms": 1e3 * seconds, "macs_per_cycle": rate})
    return totals


def record_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that was measured, and on what."""
    networks = {network: shapes_of(network) for network in arguments.networks}
    layers, hertz = measure(dict.fromkeys(shape for counts in networks.values() for shape in counts), arguments)
    return {
        "cpu": kernels.cpu_name(),
        "levels": list(arguments.levels),
        "gigahertz": 1e-9 * hertz,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "versions": record.versions(),
        "commit": record.source_commit(),
        "layers": [
            {"layer": str(shape), "macs": shape.macs, **asdict(shape), "results": [t.result(hertz) for t in timed]}
            for shape, timed in layers.items()
        ],
        "networks": {
            network: {
                "layers": {str(shape): times for shape, times in counts.items()},
                "totals": whole(counts, layers, hertz),
            }
            for network, counts in networks.items()
        },
    }


def table(found: dict[str, Any], kind: str) -> str:
    """Multiply-accumulates a cycle of one kind of input: layers and whole networks by level, in turn (again)."""
    rows = []
    for entry in found["layers"]:
        results = [result for result in entry["results"] if result["input"] == kind]
        rates = [f"{r['in_turn']['macs_per_cycle']:.0f} ({r['again']['macs_per_cycle']:.0f})" for r in results]
        rows.append([entry["layer"], *rates])
    for network, of_network in found["networks"].items():
        totals = [total for total in of_network["totals"] if total["input"] == kind]
        rows.append([network, *(f"{total['macs_per_cycle']:.0f}, {total['ms']:.2f} ms" for total in totals)])
    rows.append(["ceiling of the tile", *(str(CEILINGS[kind].get(level, "-")) for level in found["levels"])])
    return render([kind, *found["levels"]], rows)


def main() -> None:
    levels = [level for level in kernels.available() if level != "portable"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--inputs", nargs="+", choices=INPUTS, default=list(INPUTS))
    parser.add_argument("--levels", nargs="+", choices=kernels.available(), default=levels)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = record_of(arguments)
    text = json.dumps(found, indent=2)
    if arguments.json:
        print(text)
    else:
        print(f"{found['cpu']}, {found['gigahertz']:.2f} GHz, {arguments.threads} thread(s)\n")
        print("\n\n".join(table(found, kind) for kind in arguments.inputs))
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
