"""The kernels of tiles at every level: those of this CPU, and NEON in an emulator where its tools are installed."""

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from equibit import kernels
from equibit.kernels import _core

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
SOURCES = ("layout", "gemv_neon", "table_neon", "xnor_neon")
FLAGS = ("-std=c++17", "-O3", "-fno-tree-pre", "-ffp-contract=off", "-static")

emulated = pytest.param(
    "neon",
    marks=pytest.mark.skipif(
        shutil.which(COMPILER) is None or shutil.which(EMULATOR) is None, reason=f"needs {COMPILER} and {EMULATOR}"
    ),
)
LEVELS = [*kernels.available(), *([] if "neon" in kernels.available() else [emulated])]


class NativeTiles:
    """The functions of a level that runs here."""

    def __init__(self, level):
        self.level = level

    def __getattr__(self, name):
        return functools.partial(getattr(_core, name), self.level)


class EmulatedTiles:
    """The same functions of the NEON level, in one process that runs as long as the tests."""

    def __init__(self):
        cpp = Path(__file__).parents[1] / "cpp"
        self.folder = tempfile.TemporaryDirectory()
        program = Path(self.folder.name) / "neon_tiles"
        sources = [cpp / "src" / "kernels" / f"{name}.cpp" for name in SOURCES]
        includes = [f"-I{cpp / 'include'}", f"-I{cpp / 'src' / 'kernels'}"]
        subprocess.run(
            [COMPILER, *FLAGS, *includes, Path(__file__).with_name("neon_tiles.cpp"), *sources, "-o", program],
            check=True,
        )
        self.process = subprocess.Popen([EMULATOR, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(self.close)

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()
        self.folder.cleanup()

    def call(self, name, sizes, arrays, dtype, shape):
        header = " ".join([name, *map(str, (*sizes, 0, 0, 0)[:3])])
        self.process.stdin.write(f"{header}\n".encode() + b"".join(array.tobytes() for array in arrays))
        self.process.stdin.flush()
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        answer = self.process.stdout.read(count)
        assert len(answer) == count, f"the emulated kernel {name} of sizes {sizes} ended"
        return np.frombuffer(answer, dtype).reshape(shape)

    def xnor_tile(self, panel, weights):
        filters = -(-len(weights) // 4) * 4
        sizes, shape = (*panel.shape, len(weights)), (filters, panel.shape[1])
        return self.call("xnor_tile", sizes, (panel, weights), np.int32, shape)[: len(weights)]

    def gemv_xnor(self, x, weights):
        return self.call("gemv_xnor", (len(x), len(weights)), (x, weights), np.int32, (len(weights),))

    def pack_planes(self, x):
        return self.call("pack_planes", x.shape, (x,), np.uint64, (-(-len(x) // 64), x.shape[1]))

    def pack_rows(self, x):
        return self.call("pack_rows", x.shape, (x,), np.uint64, (len(x), -(-x.shape[1] // 64)))

    def table_tile_f32(self, panel, weights):
        return self.table_tile("table_tile_f32", panel, weights, np.float32)

    def table_tile_i8(self, panel, weights):
        return self.table_tile("table_tile_i8", panel, weights, np.int32)

    def table_tile(self, name, panel, weights, dtype):
        lanes, filters = panel.shape[1], -(-len(weights) // 8) * 8
        sizes = (weights.shape[1], lanes, len(weights))
        return self.call(name, sizes, (panel, weights), dtype, (filters, lanes))[: len(weights)]

    def gemv_f32(self, x, weights):
        return self.call("gemv_f32", weights.shape[::-1], (x, weights), np.float32, (len(weights),))

    def gemv_i8(self, x, weights):
        return self.call("gemv_i8", weights.shape[::-1], (x, weights), np.int32, (len(weights),))


@functools.cache
def tiles(level):
    """The functions of `equibit.kernels._core` that take a level, at this one."""
    return NativeTiles(level) if level in kernels.available() else EmulatedTiles()
