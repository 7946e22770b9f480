"""The engines that `bench` compares, each behind one function: open a file, get a function that runs it once.

All run on the CPU with as many threads as asked for, in float32 but for the int8 twins and bfloat16. The packages are
imported by whoever opens an engine: its process then holds that one alone.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from equibit.errors import StateError

Array = NDArray[Any]
Run = Callable[[Sequence[Array]], list[Array]]


@dataclass(frozen=True)
class Engine:
    """One engine.

    Attributes:
        twin: The file it runs: `given`, its dense twin `float` or `int8` (see `equibit.bench.twins`), or a program of
            torch's, which no twin is made of.
        package: The package that must be installed, or the module of it that is imported before the clock starts.
        open: Makes a session of a file with a number of threads, and gives the function that runs inputs once.
    """

    twin: str
    package: str
    open: Callable[[Path, int], Run]

    @property
    def distribution(self) -> str:
        """Name under which the package is installed; its version is part of the result."""
        return self.package.partition(".")[0]

    @property
    def installed(self) -> bool:
        """Whether the package is here; nothing is imported."""
        return find_spec(self.distribution) is not None


def _equibit(path: Path, threads: int) -> Run:
    return _runner(importlib.import_module("equibit.runtime").InferenceSession(path, threads=threads))


def _onnxruntime(path: Path, threads: int) -> Run:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return _runner(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))


def _runner(session: Any) -> Run:
    names = [value.name for value in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def _openvino(path: Path, threads: int, precision: str = "f32") -> Run:
    openvino = importlib.import_module("openvino")
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,  # without it OpenVINO takes bfloat16 where the CPU has it
    }
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    return lambda inputs: list(request.infer(list(inputs)).values())


def _openvino_bf16(path: Path, threads: int) -> Run:
    if "BF16" not in importlib.import_module("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise StateError("this CPU has no bfloat16")
    return _openvino(path, threads, "bf16")


def _torch(path: Path, threads: int, *, compiled: bool = False) -> Run:
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    module = torch.export.load(path).module()
    if compiled:  # at the first run; with freezing, because inference never changes a weight
        module = torch.compile(module, options={"freezing": True})

    def run(inputs: Sequence[Array]) -> list[Array]:
        with torch.inference_mode():
            found = module(*map(torch.from_numpy, inputs))
        return [output.numpy() for output in (found if isinstance(found, (tuple, list)) else (found,))]

    return run


def _torch_compile(path: Path, threads: int) -> Run:
    return _torch(path, threads, compiled=True)


STOCK = "onnxruntime"  # on the given file: whose outputs the others' are compared with
FLOAT = "onnxruntime-float"  # what the others are measured by
PROGRAMS = ("torch", "torch-bf16")  # twins that only the network itself can give

ENGINES: dict[str, Engine] = {
    "equibit": Engine("given", "equibit.runtime", _equibit),
    STOCK: Engine("given", "onnxruntime", _onnxruntime),
    FLOAT: Engine("float", "onnxruntime", _onnxruntime),
    "onnxruntime-int8": Engine("int8", "onnxruntime", _onnxruntime),
    "openvino": Engine("float", "openvino", _openvino),
    "openvino-bf16": Engine("float", "openvino", _openvino_bf16),
    "openvino-int8": Engine("int8", "openvino", _openvino),
    "torch": Engine("torch", "torch", _torch),
    "torch-bf16": Engine("torch-bf16", "torch", _torch),
    "torch-compile": Engine("torch", "torch", _torch_compile),
    "torch-compile-bf16": Engine("torch-bf16", "torch", _torch_compile),
}
