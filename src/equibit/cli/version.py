"""`equibit version`, also `equibit --version`: what a bug report or a measurement must say. Loads no torch."""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from typing import Any

from jsonargparse import ArgumentParser, Namespace

import equibit
from equibit import kernels
from equibit.cli import output
from equibit.cli.verb import Verb, add_json

_PACKAGES = ("torch", "onnxruntime", "onnx", "numpy")


def _add(parser: ArgumentParser, words: list[str]) -> None:
    add_json(parser)


def _run(args: Namespace) -> int:
    found = _describe()
    rows = [f"{key:13} {', '.join(value) if isinstance(value, list) else value}" for key, value in found.items()]
    output.result("\n".join([f"equibit {found['equibit']}", *rows[1:]]), found, as_json=args.json)
    return 0


def _describe() -> dict[str, Any]:
    return {
        "equibit": equibit.__version__,
        "kernel": kernels.active(),
        "kernels": list(kernels.available()),
        "cpu": kernels.cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "omp_threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        "gpu": _gpus(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
        "system": platform.platform(),
    }


def _gpus() -> list[str]:
    """Names of the CUDA devices, from the driver's own tool: torch would take seconds to load."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ["none"]
    words = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ["none"]
    return done.stdout.strip().splitlines()


VERSION = Verb("Versions, kernel level and hardware: what a bug report should say.", _add, _run)
