"""Recorded timings: where they were made and what they found, in a line each.

A record is known by its keys; of one that no shape here fits only the machine is told.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equibit.errors import FormatError


@dataclass(frozen=True)
class Benchmark:
    """One record.

    Attributes:
        file: Relative to the folder of records.
        what: What was timed.
        cpu: Model of the CPU.
        kernel: Our kernel level in use.
        threads: Of each measurement, in words.
        found: The medians, in words.
        commit: Of the code, None where the record names none.
    """

    file: str
    what: str
    cpu: str
    kernel: str
    threads: str
    found: str
    commit: str | None


def find(folder: Path) -> tuple[Benchmark, ...]:
    """All timings below a folder: JSON files that name a CPU and a kernel level, but for summaries of runs.

    Raises:
        FormatError: A JSON file is damaged.
    """
    found = records(folder)
    return tuple(_describe(path.relative_to(folder), content) for path, content in found if _machine(content))


def records(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """All JSON objects below a folder, but for summaries of runs.

    Raises:
        FormatError: A JSON file is damaged.
    """
    for path in sorted(folder.rglob("*.json")):
        content = None if path.name == "summary.json" else _read(path)
        if isinstance(content, Mapping):
            yield path, content


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path} is damaged: {error}.") from None


def _machine(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The part that names CPU and kernel level: under `hardware`, or the record itself, which may name all levels."""
    machine = content.get("hardware", content)
    if not isinstance(machine, Mapping) or "cpu" not in machine:
        return None
    if isinstance(machine.get("levels"), list):
        return {"kernel": ", ".join(machine["levels"]), **machine}
    return machine if "kernel" in machine else None


def _describe(file: Path, content: Mapping[str, Any]) -> Benchmark:
    machine = _machine(content)
    assert machine is not None
    threads = content.get("threads", machine.get("threads", "-"))
    shape = next((shape for shape in _SHAPES if shape.keys <= content.keys()), None)
    return Benchmark(
        file=file.as_posix(),
        what=shape.what(content) if shape else file.stem.replace("_", " "),
        cpu=machine["cpu"],
        kernel=machine["kernel"],
        threads=", ".join(threads) if isinstance(threads, Mapping) else str(threads),
        found="; ".join(shape.lines(content)) if shape else "see the record",
        commit=content.get("commit"),
    )


def _steps(content: Mapping[str, Any]) -> Iterable[str]:
    for row in content["rows"]:
        over = f" ({row['over_float']['median']:.2f} of float)" if row["network"] != "float" else ""
        yield f"{row['setting']}, {row['network']}: {_ms(1000 * row['seconds']['median'])}{over}"


def _first_steps(content: Mapping[str, Any]) -> Iterable[str]:
    """As the first version of benchmarks/step_time.py wrote them."""
    yield f"float: {_ms(1000 * content['float_seconds'])}"
    for name, row in content["methods"].items():
        yield f"{name}: {_ms(1000 * row['seconds'])} ({row['ratio_median']:.2f} of float)"


def _selection(content: Mapping[str, Any]) -> Iterable[str]:
    for threads, rows in content["threads"].items():
        times = ", ".join(f"{name} {_ms(row['median_ms'])}" for name, row in rows.items())
        yield f"{threads} thread{'s' if threads != '1' else ''}: {times}"


def _engines(content: Mapping[str, Any]) -> Iterable[str]:
    for row in content["results"]:
        yield f"{row['engine']}: {_ms(row['median_ms'])}"


def _layers(content: Mapping[str, Any]) -> Iterable[str]:
    for network, found in content["networks"].items():
        for total in found["totals"]:
            took = f"{_ms(total['ms'])}, {total['macs_per_cycle']:.0f} MAC a cycle"
            yield f"{network}, {total['input']}, {total['level']}: {took}"


def _binary_convolutions(content: Mapping[str, Any]) -> Iterable[str]:
    for layer in content["layers"]:
        size = f"{layer['channels']} channels, {layer['side']}x{layer['side']}"
        yield f"{size}: {_ms(layer['equibit']['median_ms'])} ({layer['speed']:.2f} times as fast)"


def _linear(content: Mapping[str, Any]) -> Iterable[str]:
    for layer in content["linear"]:
        times = {result["way"]: result["in_turn"] for result in layer["results"]}
        for way, taken in times.items():
            over = f", {times['torch']['median_ms'] / taken['median_ms']:.1f} times as fast as torch"
            rate = f"{_ms(taken['median_ms'])}, {taken['gigabytes_per_second']:.1f} GB/s"
            yield f"{layer['size']}, {way}: {rate}{over if way.startswith('equibit') else ''}"
    yield f"memory: {content['memory']['in_turn']['gigabytes_per_second']:.1f} GB/s"


def _predictions(content: Mapping[str, Any]) -> Iterable[str]:
    for row in content["predictions"]:
        counts = [row[engine]["different_predictions"] for engine in ("equibit", "onnxruntime")]
        exact = row.get("equibit_beside_exact_sums")
        beside = "" if exact is None else f" (ours from torch with exact sums: {exact['different_predictions']})"
        yield f"{row['run']}: {counts[0]} and {counts[1]} of {row['n']:,}{beside}"


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def conditions(content: Mapping[str, Any]) -> str:
    """Under what a record of networks was made beside the usual, in words that follow others."""
    limit = f", engines limited to {content['isa']}" if content.get("isa") else ""
    return f"{limit}, a core busy" if content.get("busy") else limit


def _network_of(content: Mapping[str, Any]) -> str:
    return f"{content['network']}, batch {content['batch']}{conditions(content)}"


def _step_of(content: Mapping[str, Any]) -> str:
    return f"a training step of {content['model']}, batch {content['batch']}"


@dataclass(frozen=True)
class _Shape:
    keys: frozenset[str]
    what: Callable[[Mapping[str, Any]], str]
    lines: Callable[[Mapping[str, Any]], Iterable[str]]


_SHAPES = (
    _Shape(frozenset({"rows", "model", "batch", "rounds"}), _step_of, _steps),
    _Shape(frozenset({"float_seconds", "methods", "model", "batch"}), _step_of, _first_steps),
    _Shape(frozenset({"filters", "threads"}), lambda c: f"selection of the weights of {c['model']}", _selection),
    _Shape(frozenset({"results", "network", "batch"}), _network_of, _engines),
    _Shape(
        frozenset({"levels", "layers", "networks"}), lambda c: "binary layers, batch 1, all of each network", _layers
    ),
    _Shape(
        frozenset({"openvino", "layers"}),
        lambda c: "1W1A 3x3 convolutions beside OpenVINO's BinaryConvolution",
        _binary_convolutions,
    ),
    _Shape(frozenset({"linear", "memory"}), lambda c: "square linear layers on one input", _linear),
    _Shape(
        frozenset({"predictions"}),
        lambda c: "predictions that differ from torch's: our operators, stock onnxruntime",
        _predictions,
    ),
    _Shape(frozenset({"results", "file", "batch"}), lambda c: f"{c['file']}, batch {c['batch']}", _engines),
)
