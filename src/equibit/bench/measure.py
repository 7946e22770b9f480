"""The measurement: every engine in its own process, all of them timed in turns within one run."""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from equibit import kernels, runtime
from equibit.bench import twins
from equibit.bench.engines import ENGINES, FLOAT, STOCK, Array
from equibit.errors import InputError, StateError

# The float twin in the engine of the given file differs by rounding at most (measured: by nothing), while one wrong
# weight bit in a hundred makes 0.1.
_TOLERANCE = 1e-3
_TURN_MS = 10.0  # a turn repeats short runs, because the first ones after another engine's turn are slower
_LONGEST_TURN = 100  # runs
_PAUSE = 0.1  # s; the threads of onnxruntime spin for up to 50 ms after a run (measured), on the next engine's time


@dataclass(frozen=True)
class EngineResult:
    """One engine's figures.

    Attributes:
        engine: Its key in `equibit.bench.engines.ENGINES`.
        version: Of its package.
        median_ms: Of all timed runs of one batch; so are `p10_ms` and `p90_ms`.
        runs: How many were timed.
        load_ms: Making the session in a fresh process, the library being imported and the file in the system's cache.
        peak_rss_mb: Most memory its process ever held, in 1e6 bytes: interpreter, numpy, engine, file, session, runs.
        file_bytes: Size of the file it ran.
        error: Root mean square of the difference of its outputs to those of the given file in stock onnxruntime,
            relative to the latter. About 1e-6 in float, more in int8; where activations are signs it says little,
            because a rounding error near 0 turns a sign over, and that may turn over others.
    """

    engine: str
    version: str
    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int
    load_ms: float
    peak_rss_mb: float
    file_bytes: int
    error: float


@dataclass(frozen=True)
class Report:
    """What `bench` measured, and where.

    Attributes:
        file: The file.
        cpu: Model of the CPU.
        kernel: Our kernel level in use.
        operator_library: Whether this build has our operators; without, `equibit` is stock onnxruntime.
        threads: Threads of each engine.
        batch: Inputs in a run.
        results: One per engine that ran.
        absent: Engine and reason of those that did not.
    """

    file: str
    cpu: str
    kernel: str
    operator_library: bool
    threads: int
    batch: int
    results: tuple[EngineResult, ...]
    absent: tuple[dict[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def bench(
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    batch: int = 1,
    rounds: int = 31,
    on_round: Callable[[int], object] | None = None,
) -> Report:
    """Times a file in our runtime, beside stock onnxruntime and other engines on the file and on its dense twins.

    Args:
        path: An exported file; another ONNX file with float inputs will do, then its float twin is the file itself.
        threads: Threads of each engine.
        batch: Inputs in a run.
        rounds: Turns of each engine; the order within a round is random, always the same.
        on_round: Called with the number of each finished round.

    Raises:
        InputError: A number below 1, or a batch that the file does not take.
        FileError: No file at `path`.
        FormatError: It is no ONNX file, or its inputs are not float with all sides but the batch fixed.
        StateError: The float twin does not compute what the file computes.
    """
    for name, value in (("batch", batch), ("rounds", rounds)):
        if value < 1:
            raise InputError(f"{name} is {value}; give 1 or more.")
    source, kernel = Path(path), kernels.active()
    inputs = twins.random_inputs(runtime.InferenceSession(source, threads=threads), batch)
    with tempfile.TemporaryDirectory(prefix="equibit-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        np.savez(folder / "inputs.npz", *inputs)
        workers, absent = _start(source, folder, threads, stack)
        _take_turns(workers, rounds, _PAUSE if threads > 1 else 0.0, on_round)
        expected = next(worker.found() for worker in workers if worker.name == STOCK)
        results = [worker.result(expected) for worker in workers]
    _require_same(results)
    return Report(
        file=str(path),
        cpu=kernels.cpu_name(),
        kernel=kernel,
        operator_library=_has_operator_library(),
        threads=threads,
        batch=batch,
        results=tuple(results),
        absent=tuple(absent),
    )


def _start(source: Path, folder: Path, threads: int, stack: ExitStack) -> tuple[list["_Worker"], list[dict[str, str]]]:
    """A worker for each engine that can run, and engine and reason for each one that cannot."""
    files, failures = _write_twins(source, folder)
    workers, absent = [], []
    for name, engine in ENGINES.items():
        reason = failures.get(engine.twin, "") if engine.installed else f"{engine.package} is not installed"
        if not reason:
            worker = stack.enter_context(_Worker(name, files[engine.twin], folder, threads))
            reason = worker.failure
        if reason:
            absent.append({"engine": name, "reason": reason})
        else:
            workers.append(worker)
    return workers, absent


def _write_twins(source: Path, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The file and its twins, and why one could not be made: not every foreign network can be quantised."""
    files = {"given": source, "float": folder / "float.onnx", "int8": folder / "int8.onnx"}
    failures = {}
    for twin, write, start in (
        ("float", twins.write_float, source),
        ("int8", twins.write_int8, files["float"]),
    ):
        try:
            write(start, files[twin])
        except Exception as error:  # onnx and onnxruntime raise whatever they like
            failures[twin] = f"no {twin} twin: {type(error).__name__}: {' '.join(str(error).split())}"
    return files, failures


def _take_turns(
    workers: Sequence["_Worker"], rounds: int, pause: float, on_round: Callable[[int], object] | None
) -> None:
    """Lets each worker time its runs once a round, in a random order: no engine always follows the same one."""
    order = random.Random(0)
    for number in range(1, rounds + 1):
        for worker in order.sample(workers, len(workers)):
            time.sleep(pause)
            worker.take_turn()
        if on_round is not None:
            on_round(number)


def _require_same(results: Sequence[EngineResult]) -> None:
    """The float twin is compared in the engine of the given file: others round otherwise."""
    for result in results:
        if result.engine == FLOAT and not result.error <= _TOLERANCE:
            raise StateError(
                f"the float twin does not compute what the file computes (relative error {result.error:.2g}); its "
                "figures would say nothing. Please report the file."
            )


def _has_operator_library() -> bool:
    try:
        runtime.library_path()
    except StateError:
        return False
    return True


class _Worker:
    """One engine in a process of its own (`equibit.bench.worker`); `failure` says why it cannot run the file."""

    def __init__(self, name: str, file: Path, folder: Path, threads: int) -> None:
        self.name, self.file = name, file
        self.outputs, self.log = folder / f"{name}.npz", folder / f"{name}.log"
        self.times: list[float] = []
        words = [name, str(file), str(folder / "inputs.npz"), str(self.outputs), str(threads)]
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "equibit.bench.worker", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
            )
        self.opened: dict[str, Any] = self._receive()
        self.failure = str(self.opened.get("error", ""))

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Ends the process, whatever it is doing."""
        self.process.kill()
        self.process.communicate()

    def take_turn(self) -> None:
        """Times as many runs as fit into a turn, at least one."""
        count = int(min(max(_TURN_MS / self.opened["run_ms"], 1), _LONGEST_TURN))
        self.times += self._ask(str(count))

    def found(self) -> list[Array]:
        """Its outputs."""
        with np.load(self.outputs) as arrays:
            return list(arrays.values())

    def result(self, expected: Sequence[Array]) -> EngineResult:
        """The figures, once all turns are over; `expected` are the outputs of the given file in stock onnxruntime."""
        median, low, high = np.percentile(self.times, (50, 10, 90))
        return EngineResult(
            engine=self.name,
            version=metadata.version(ENGINES[self.name].package),
            median_ms=float(median),
            p10_ms=float(low),
            p90_ms=float(high),
            runs=len(self.times),
            load_ms=self.opened["load_ms"],
            peak_rss_mb=self._ask("")["peak_rss_mb"],
            file_bytes=self.file.stat().st_size,
            error=_relative_error(self.found(), expected),
        )

    def _ask(self, request: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{request}\n")
        self.process.stdin.flush()
        return self._receive()

    def _receive(self) -> Any:
        assert self.process.stdout is not None
        reply = self.process.stdout.readline()
        if not reply:
            last = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise StateError(f"the process of {self.name} ended with code {self.process.wait()}: {' '.join(last)}")
        return json.loads(reply)


def _relative_error(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """Root mean square of the difference, relative to that of `expected`."""
    given, wanted = (np.concatenate([np.ravel(x).astype(np.float64) for x in side]) for side in (found, expected))
    if given.shape != wanted.shape:
        return float("inf")
    return float(np.linalg.norm(given - wanted)) / max(float(np.linalg.norm(wanted)), 1e-30)
