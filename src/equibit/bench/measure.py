"""The measurement: every engine in its own process, all of them timed in turns within one run."""

import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from equibit import kernels, runtime
from equibit.bench import twins
from equibit.bench.engines import ENGINES, FLOAT, PROGRAMS, STOCK, Array
from equibit.errors import InputError, StateError

# The float twin in the engine of the given file differs by rounding at most (measured: by nothing), while one wrong
# weight bit in a hundred makes 0.1.
_TOLERANCE = 1e-3
_TURN_MS = 10.0  # a turn repeats short runs, because the first ones after another engine's turn are slower
_LONGEST_TURN = 100  # runs
_NO_PROGRAM = "an exported file holds no torch network; benchmarks/networks.py measures it"
_WRONG = "its outputs are not finite, or not of the shape of the file's"
_PAUSE = 0.1  # s; the threads of onnxruntime spin for up to 50 ms after a run (measured), on the next engine's time


@dataclass(frozen=True)
class EngineResult:
    """One engine's figures.

    Attributes:
        engine: Its key in `equibit.bench.engines.ENGINES`.
        version: Of its package.
        median_ms: Of all timed runs of one batch; so are `p10_ms` and `p90_ms`.
        runs: How many were timed.
        load_ms: Making the session in a fresh process, the library being imported and the file in the system's cache;
            the median of all starts.
        cold_ms: From the start of a process to its first outputs: interpreter, imports, session and one run; the
            median of all starts.
        cold_all_ms: Of each start.
        peak_rss_mb: Most memory its process ever held, in 1e6 bytes: interpreter, numpy, engine, file, session, runs.
        import_rss_mb: What of it its process held before it opened the file: interpreter, numpy, engine.
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
    cold_ms: float
    cold_all_ms: tuple[float, ...]
    peak_rss_mb: float
    import_rss_mb: float
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
        absent: Engine and reason of those that did not, or not to the end.
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
    starts: int = 1,
    programs: Mapping[str, Path] | None = None,
    on_round: Callable[[int], object] | None = None,
) -> Report:
    """Times a file in our runtime, beside stock onnxruntime and other engines on the file and on its dense twins.

    Args:
        path: An exported file; another ONNX file with float inputs will do, then its float twin is the file itself.
        threads: Threads of each engine.
        batch: Inputs in a run.
        rounds: Turns of each engine; the order within a round is random, always the same.
        starts: Processes of each engine, one after the other; the last one takes the turns.
        programs: Files that `torch.export.save` wrote of the float network, by the twin that they stand for (`torch`,
            `torch-bf16`); torch's engines are absent without.
        on_round: Called with the number of each finished round.

    Raises:
        InputError: A number below 1, or a batch that the file does not take.
        FileError: No file at `path`.
        FormatError: It is no ONNX file, or its inputs are not float with all sides but the batch fixed.
        StateError: The float twin does not compute what the file computes.
    """
    for name, value in (("batch", batch), ("rounds", rounds), ("starts", starts)):
        if value < 1:
            raise InputError(f"{name} is {value}; give 1 or more.")
    source, kernel = Path(path), kernels.active()
    inputs = twins.random_inputs(runtime.InferenceSession(source, threads=threads), batch)
    with tempfile.TemporaryDirectory(prefix="equibit-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        np.savez(folder / "inputs.npz", *inputs)
        files, failures = _write_twins(source, folder)
        failures |= {twin: _NO_PROGRAM for twin in PROGRAMS if twin not in (programs or {})}
        plan = _Plan(folder, threads, starts, files | dict(programs or {}), failures)
        workers, absent = _start(plan, stack)
        _take_turns(workers, rounds, _PAUSE if threads > 1 else 0.0, on_round)
        expected = next(worker.found() for worker in workers if worker.name == STOCK)
        results = [worker.result(expected) for worker in workers]
    if not twins.has_rounding(source):  # else the float twin is another network on purpose
        _require_same(results)
    absent += [{"engine": r.engine, "reason": _WRONG} for r in results if not math.isfinite(r.error)]
    return Report(
        file=str(path),
        cpu=kernels.cpu_name(),
        kernel=kernel,
        operator_library=_has_operator_library(),
        threads=threads,
        batch=batch,
        results=tuple(result for result in results if math.isfinite(result.error)),
        absent=tuple(absent),
    )


@dataclass(frozen=True)
class _Plan:
    """What the engines are given.

    Attributes:
        folder: For the inputs, the outputs and what engines write.
        threads: Of each engine.
        starts: Of each engine.
        files: By twin.
        failures: Why a twin is missing, by twin.
    """

    folder: Path
    threads: int
    starts: int
    files: Mapping[str, Path]
    failures: Mapping[str, str]


def _start(plan: _Plan, stack: ExitStack) -> tuple[list["_Worker"], list[dict[str, str]]]:
    """A worker for each engine that can run, and engine and reason for each one that cannot."""
    workers, absent = [], []
    for name, engine in ENGINES.items():
        reason = plan.failures.get(engine.twin, "") if engine.installed else f"{engine.distribution} is not installed"
        if not reason:
            worker = _start_one(name, plan, stack)
            reason = worker.failure
        if reason:
            absent.append({"engine": name, "reason": reason})
        else:
            workers.append(worker)
    return workers, absent


def _start_one(name: str, plan: _Plan, stack: ExitStack) -> "_Worker":
    """Starts an engine as often as planned, or until it fails; the last process stays and knows of all."""
    earlier: list[dict[str, Any]] = []
    for _ in range(plan.starts - 1):
        with _Worker(name, plan) as worker:
            if worker.failure:
                return worker
            earlier += worker.opened
    return stack.enter_context(_Worker(name, plan, earlier))


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

    def __init__(self, name: str, plan: _Plan, earlier: Sequence[dict[str, Any]] = ()) -> None:
        self.name, self.file = name, plan.files[ENGINES[name].twin]
        self.outputs, self.log = plan.folder / f"{name}.npz", plan.folder / f"{name}.log"
        self.times: list[float] = []
        words = [name, str(self.file), str(plan.folder / "inputs.npz"), str(self.outputs), str(plan.threads)]
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "equibit.bench.worker", *words, str(time.perf_counter())],
                env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(plan.folder / "inductor")},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
            )
        self.opened: list[dict[str, Any]] = [*earlier, self._receive()]
        self.failure = str(self.opened[-1].get("error", ""))

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Ends the process, whatever it is doing."""
        self.process.kill()
        self.process.communicate()

    def take_turn(self) -> None:
        """Times as many runs as fit into a turn, at least one."""
        count = int(min(max(_TURN_MS / self.opened[-1]["run_ms"], 1), _LONGEST_TURN))
        self.times += self._ask(str(count))

    def found(self) -> list[Array]:
        """Its outputs."""
        with np.load(self.outputs) as arrays:
            return list(arrays.values())

    def result(self, expected: Sequence[Array]) -> EngineResult:
        """The figures, once all turns are over; `expected` are the outputs of the given file in stock onnxruntime."""
        median, low, high = np.percentile(self.times, (50, 10, 90))
        cold = tuple(start["cold_ms"] for start in self.opened)
        return EngineResult(
            engine=self.name,
            version=metadata.version(ENGINES[self.name].distribution),
            median_ms=float(median),
            p10_ms=float(low),
            p90_ms=float(high),
            runs=len(self.times),
            load_ms=statistics.median(start["load_ms"] for start in self.opened),
            cold_ms=statistics.median(cold),
            cold_all_ms=cold,
            peak_rss_mb=self._ask("")["peak_rss_mb"],
            import_rss_mb=self.opened[-1]["import_rss_mb"],
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
