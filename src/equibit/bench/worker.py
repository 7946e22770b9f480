"""The process of one engine: `python -m equibit.bench.worker ENGINE FILE INPUTS OUTPUTS THREADS STARTED`.

It opens the file, runs the inputs once, writes the outputs and answers one JSON line, `{"load_ms", "cold_ms",
"run_ms", "import_rss_mb"}`; STARTED is when its parent started it, by `time.perf_counter`, which all processes share.
Then each line `N` on standard input is answered by the milliseconds of N runs, after one that is not timed, and an
empty line by `{"peak_rss_mb"}`. It ends with its standard input, so with its parent.
"""

import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from equibit.bench.engines import ENGINES, Array, Run

_SYSTEM = Path("/proc/self/status")


def main(name: str, file: str, inputs_file: str, outputs_file: str, threads: str, started: str) -> None:
    """Serves one engine until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    replies = _own_stdout()
    try:
        engine = ENGINES[name]
        importlib.import_module(engine.package)
        import_rss_mb = peak_rss_mb()
        start = time.perf_counter()
        run = engine.open(Path(file), int(threads))
        load_ms = 1e3 * (time.perf_counter() - start)
        inputs = list(np.load(inputs_file).values())
        outputs = run(inputs)
        cold_ms = 1e3 * (time.perf_counter() - float(started))
        np.savez(outputs_file, *outputs)
        run_ms = min(_time(run, inputs, 3))
        figures = {"load_ms": load_ms, "cold_ms": cold_ms, "run_ms": run_ms, "import_rss_mb": import_rss_mb}
        _reply(replies, figures)
    except Exception as error:  # every engine has its own exceptions
        _reply(replies, {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"})
        return
    for line in sys.stdin:
        count = line.strip()
        _reply(replies, _time(run, inputs, int(count)) if count else {"peak_rss_mb": peak_rss_mb()})


def _own_stdout() -> TextIO:
    """Standard output for the replies; whatever an engine prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _reply(replies: TextIO, content: Any) -> None:
    print(json.dumps(content), file=replies, flush=True)


def _time(run: Run, inputs: list[Array], count: int) -> list[float]:
    """Milliseconds of `count` runs; one before them brings caches and sleeping threads back."""
    run(inputs)
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run(inputs)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def peak_rss_mb() -> float:
    """Most memory this process ever held, in MB (1e6 bytes).

    Linux's `getrusage` does not serve: it carries over the peak of the process that started this one.
    """
    if _SYSTEM.is_file():
        line = next(line for line in _SYSTEM.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    resource = importlib.import_module("resource")  # absent on Windows
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)  # macOS counts bytes


if __name__ == "__main__":
    main(*sys.argv[1:])
