"""Speed of whole networks: our files beside onnxruntime, OpenVINO and torch on their dense twins.

    python benchmarks/networks.py [--networks cifar-1w1a ...] [--threads 1] [--rounds 31] [--out FOLDER]

Each is ResNet-18 with random weights, binarised, exported and timed as `equibit bench` does (batch 1, every engine in a
process of its own, in turns); then beside its float twin in torch, in turns within this process. 1W1A networks have
blocks without ReLU (`bireal`); first layer, last layer and shortcuts are float unless the name says otherwise. Prints a
table, and writes NAME.json into FOLDER.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import equibit as eb
from equibit import models, runtime
from equibit.bench.measure import bench
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
    "imagenet-1w32a": {"size": 224},
}


def make(size: int, block: str = "relu", activation: str | None = None, skip: Any = None) -> tuple[nn.Module, Tensor]:
    """A network of random weights whose batch norm fits them, and an input."""
    torch.manual_seed(0)
    model = models.create("resnet18", num_classes=10 if size == 32 else 1000, in_shape=(3, size, size), block=block)
    eb.binarize_(model, "bi_half", activation=activation, skip=skip or eb.first_last_and_shortcuts)
    eb.recalibrate_batchnorm(model, [torch.randn(8, 3, size, size)])
    return model.eval(), torch.randn(1, 3, size, size)


def beside_torch(path: Path, options: Mapping[str, Any], threads: int, rounds: int) -> dict[str, Any]:
    """Medians of our file, and of the float network in torch as it is, with channels_last and with bf16."""
    size = options["size"]
    model = models.create("resnet18", num_classes=10 if size == 32 else 1000, in_shape=(3, size, size)).eval()
    x = torch.randn(1, 3, size, size)
    last = x.to(memory_format=torch.channels_last)
    session = runtime.InferenceSession(path, threads=threads)
    name = session.get_inputs()[0].name

    def in_bf16() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return model(last)

    engines: dict[str, Callable[[], object]] = {
        "equibit": lambda: session.run(None, {name: x.numpy()}),
        "torch eager": lambda: model(x),
        "torch bf16 channels_last": in_bf16,
    }
    seconds: dict[str, list[float]] = {engine: [] for engine in engines}
    with torch.inference_mode():
        for turn in range(rounds + 2):
            for engine, run in engines.items():
                run()  # after another engine's turn the first run is slower
                start = time.perf_counter()
                run()
                if turn > 1:
                    seconds[engine].append(time.perf_counter() - start)
    return {
        engine: {
            "median_ms": 1e3 * statistics.median(taken),
            "p10_ms": 1e3 * statistics.quantiles(taken, n=10)[0],
            "p90_ms": 1e3 * statistics.quantiles(taken, n=10)[-1],
        }
        for engine, taken in seconds.items()
    }


def measure(options: Mapping[str, Any], threads: int, rounds: int) -> dict[str, Any]:
    """The report of `bench`, with torch's figures under `torch`."""
    build = {key: value for key, value in options.items() if key != "activations"}
    model, x = make(**build)
    int8 = {"activations": "int8", "calibration": x} if options.get("activations") == "int8" else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        eb.export_onnx(model, path, x, **int8)
        report = bench(path, threads=threads, rounds=rounds).to_dict()
        beside = beside_torch(path, options, threads, rounds)
    return {**report, "file": "a temporary file", "torch": beside}


def table(found: Mapping[str, Any]) -> str:
    rows = [
        (r["engine"], r["median_ms"], r["p10_ms"], r["p90_ms"], r["load_ms"], r["peak_rss_mb"], r["file_bytes"])
        for r in found["results"]
    ]
    rows += [(f"{engine}, one process", *times.values(), None, None, None) for engine, times in found["torch"].items()]
    cells = [tuple("-" if v is None else v if isinstance(v, str) else f"{v:,.2f}" for v in row) for row in rows]
    return render(("engine", "median ms", "p10", "p90", "load ms", "peak MB", "file bytes"), cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.networks:
        found = measure(NETWORKS[name], arguments.threads, arguments.rounds)
        found |= {"network": name, "hardware": record.hardware("cpu"), "versions": record.versions(),
                  "commit": record.source_commit()}  # fmt: skip
        print(f"{name}\n{table(found)}")
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            target = arguments.out / f"{name}.{arguments.threads}.json"
            target.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
