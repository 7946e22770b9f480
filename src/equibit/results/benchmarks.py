"""Recorded timings: where they were made and what they found, in a line each.

A record is known by its keys; of one that no shape here fits only the machine is told.
"""

import json
from collections.abc import Callable, Iterable, Mapping
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
    found = ((path, _read(path)) for path in sorted(folder.rglob("*.json")) if path.name != "summary.json")
    return tuple(_describe(path.relative_to(folder), content) for path, content in found if _machine(content))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path} is damaged: {error}.") from None


def _machine(content: Any) -> Mapping[str, Any] | None:
    """The part that names CPU and kernel level: under `hardware`, or the record itself."""
    machine = content.get("hardware", content) if isinstance(content, Mapping) else None
    return machine if isinstance(machine, Mapping) and {"cpu", "kernel"} <= machine.keys() else None


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


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


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
    _Shape(frozenset({"results", "file", "batch"}), lambda c: f"{c['file']}, batch {c['batch']}", _engines),
)
