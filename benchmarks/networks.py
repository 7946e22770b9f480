"""Speed of whole networks: our files beside onnxruntime, OpenVINO and torch on their dense twins.

    python benchmarks/networks.py [--networks cifar-1w1a ...] [--threads 1] [--rounds 31] [--starts 5] [--isa avx2]
                                  [--busy 1] [--out FOLDER]

Each is ResNet-18 with random weights, binarised, exported and timed as `equibit bench` does: batch 1, every engine in a
process of its own, all in turns. torch runs the same network with its weights made dense: as it is, in bfloat16 with
channels_last, and both compiled. 1W1A networks have blocks without ReLU (`bireal`); first layer, last layer and
shortcuts are float unless the name says otherwise (`int8_rest`: they have 8 bits). --starts is the number of processes
that an engine's cold start is measured on. --isa avx2 keeps ours, torch and OpenVINO from wider instructions;
onnxruntime cannot be kept. --busy 1 keeps a core busy with another process all the while. Prints a table, and writes
NAME.THREADS.json into FOLDER (NAME.THREADS.avx2.json, NAME.THREADS.busy.json).
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import equibit as eb
from equibit import models
from equibit.bench.measure import bench
from equibit.layers import binary_layers
from equibit.tables import render
from equibit.training import record

NETWORKS: Mapping[str, dict[str, Any]] = {
    "cifar-1w1a": {"size": 32, "block": "bireal", "activation": "bireal"},
    "cifar-1w1a-binary_shortcuts": {
        "size": 32,
        "block": "bireal",
        "activation": "bireal",
        "skip": eb.first_and_last,
    },
    "cifar-1w32a": {"size": 32},
    "cifar-1w8a": {"size": 32, "activations": "int8"},
    "imagenet-1w1a": {"size": 224, "block": "bireal", "activation": "bireal"},
    "imagenet-1w1a-int8_rest": {"size": 224, "block": "bireal", "activation": "bireal", "float_layers": "int8"},
    "imagenet-1w32a": {"size": 224},
}
EXPORT = ("activations", "float_layers")  # options of the export that round, and so need inputs


# What keeps the engines to an instruction set, all of it in the environment of their processes.
LIMITS: Mapping[str, Mapping[str, Any]] = {
    "avx2": {
        "environment": {"EQUIBIT_KERNEL": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        "equibit": "EQUIBIT_KERNEL",
        "torch": "ATEN_CPU_CAPABILITY for its own and for compiled kernels, ONEDNN_MAX_CPU_ISA for oneDNN's",
        "openvino": "ONEDNN_MAX_CPU_ISA for convolutions and matrix products; some elementwise kernels stay wider",
        "onnxruntime": "not limited: it has no switch at run time and takes what the CPU has",
    }
}


def make(size: int, block: str = "relu", activation: str | None = None, skip: Any = None) -> tuple[nn.Module, Tensor]:
    """A network of random weights whose batch norm fits them, and an input."""
    torch.manual_seed(0)
    model = models.create("resnet18", num_classes=10 if size == 32 else 1000, in_shape=(3, size, size), block=block)
    eb.binarize_(model, "bi_half", activation=activation, skip=skip or eb.first_last_and_shortcuts)
    eb.recalibrate_batchnorm(model, [torch.randn(8, 3, size, size)])
    return model.eval(), torch.randn(1, 3, size, size)


class InBfloat16(nn.Module):
    """A network in bfloat16 with channels_last, whose inputs and outputs stay float32 and planar."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(torch.bfloat16, memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of inputs."""
        y: Tensor = self.model(x.to(torch.bfloat16, memory_format=torch.channels_last))
        return y.float()


def write_programs(model: nn.Module, x: Tensor, folder: Path) -> dict[str, Path]:
    """The network with dense weights as torch keeps it, by the twin that it stands for; changes the model."""
    with torch.no_grad():
        for layer in list(binary_layers(model)):
            parametrize.remove_parametrizations(layer.module, "weight", leave_parametrized=True)
    model.requires_grad_(False)
    programs = {"torch": folder / "float.pt2", "torch-bf16": folder / "bf16.pt2"}
    for network, path in zip((model, InBfloat16(model)), programs.values(), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about weights with channels_last, which are saved all the same
            torch.export.save(torch.export.export(network.eval(), (x,)), path)
    return programs


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that only count, for as long as the context lasts."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(options: Mapping[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """The report of `bench`."""
    rounded = {key: options[key] for key in EXPORT if key in options}
    model, x = make(**{key: value for key, value in options.items() if key not in EXPORT})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        eb.export_onnx(model, folder / "network.onnx", x, calibration=x if rounded else None, **rounded)
        programs = write_programs(model, x, folder)
        with busy(arguments.busy):
            report = bench(
                folder / "network.onnx",
                threads=arguments.threads,
                rounds=arguments.rounds,
                starts=arguments.starts,
                programs=programs,
            )
    return report.to_dict() | {"file": "a temporary file"}


def table(found: Mapping[str, Any]) -> str:
    """Every engine's figures."""
    rows = [
        (
            r["engine"],
            r["median_ms"],
            r["p10_ms"],
            r["p90_ms"],
            r["load_ms"],
            r["cold_ms"],
            r["import_rss_mb"],
            r["peak_rss_mb"],
        )
        for r in found["results"]
    ]
    cells = [(name, *(f"{value:,.2f}" for value in values)) for name, *values in rows]
    columns = ("engine", "median ms", "p10", "p90", "load ms", "cold start ms", "import MB", "peak MB")
    return "\n".join([render(columns, cells), *(f"absent: {m['engine']} ({m['reason']})" for m in found["absent"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--isa", choices=list(LIMITS))
    parser.add_argument("--busy", type=int, default=0, help="other processes")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    limits = LIMITS.get(arguments.isa, {})
    os.environ.update(limits.get("environment", {}))
    for name in arguments.networks:
        found = measure(NETWORKS[name], arguments)
        found |= {key: vars(arguments)[key] for key in ("isa", "busy", "rounds", "starts")} | {"limits": limits}
        found |= {"network": name, "hardware": record.hardware("cpu"), "versions": record.versions(),
                  "commit": record.source_commit()}  # fmt: skip
        print(f"{name}\n{table(found)}")
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            words = (name, str(arguments.threads), arguments.isa, "busy" if arguments.busy else None, "json")
            target = arguments.out / ".".join(filter(None, words))
            target.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
