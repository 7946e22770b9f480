"""Which kernels this machine runs."""

import functools
import platform
from pathlib import Path

from equibit.kernels import _core


def available() -> tuple[str, ...]:
    """The levels that this CPU runs and this build contains, best first; `portable` is always the last."""
    return tuple(_core.available())


def active() -> str:
    """The level in use: the best available one, or the one that the variable `EQUIBIT_KERNEL` names.

    It is chosen once, when a kernel or this function is first used.

    Raises:
        InputError: `EQUIBIT_KERNEL` names no level, or one that this CPU or this build lacks.
    """
    return _core.active()


@functools.cache
def cpu_name() -> str:
    """The model of this CPU, for the record of a measurement; its architecture where no model is named."""
    return _model_name(Path("/proc/cpuinfo")) or platform.processor() or platform.machine()


def _model_name(cpuinfo: Path) -> str:
    if not cpuinfo.is_file():
        return ""
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return ""
