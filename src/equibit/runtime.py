"""Running exported files: an onnxruntime session, with our kernels where they are built. Needs no torch."""

import os
import sys
from pathlib import Path

import onnxruntime

import equibit
from equibit.errors import FileError, FormatError, InputError, StateError

_LIBRARY = {"darwin": "libequibit_ort.dylib", "win32": "equibit_ort.dll"}.get(sys.platform, "libequibit_ort.so")


class InferenceSession(onnxruntime.InferenceSession):  # type: ignore[misc]
    """An `onnxruntime.InferenceSession` on the CPU, in which our operator library computes the packed layers.

    It takes the best kernels that this CPU runs, or those that the variable `EQUIBIT_KERNEL` names. Where only the
    portable ones would run and they are not asked for, and in a build without the library, the session is a stock
    one: the functions inside the file do the work, in float.

    Args:
        path: An exported file, or its bytes.
        threads: Threads of one run.

    Raises:
        InputError: `threads` is below 1, or `EQUIBIT_KERNEL` names a level that this CPU or this build lacks.
        FileError: No file at `path`.
        FormatError: onnxruntime cannot load the file; where one of our layers is damaged the message names it.
    """

    def __init__(self, path: str | os.PathLike[str] | bytes, threads: int = 1) -> None:
        if threads < 1:
            raise InputError(f"threads is {threads}; give 1 or more.")
        if not isinstance(path, bytes) and not Path(path).is_file():
            raise FileError(f"no file at {path}.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        _register(options, threads)
        try:
            super().__init__(
                path if isinstance(path, bytes) else os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions share no base class
            name = "the model" if isinstance(path, bytes) else path
            raise FormatError(f"onnxruntime cannot load {name}: {error}") from error


def library_path() -> Path:
    """Path of the library with our operators, for onnxruntime in any language: `RegisterCustomOpsLibrary` takes it.

    The session's threads are `IntraOpNumThreads`; the library divides its work by the session configuration entry
    `equibit.threads`, by the number of processors without it.

    Raises:
        StateError: This build has no operator library.
    """
    path = _library()
    if path is None:
        raise StateError("this build has no operator library; stock onnxruntime runs the exported files as they are.")
    return path


def _library() -> Path | None:
    """The library beside the compiled kernels; in an editable install the package has several folders."""
    places = (Path(folder) / "kernels" / _LIBRARY for folder in equibit.__path__)
    return next((path for path in places if path.is_file()), None)


def _register(options: onnxruntime.SessionOptions, threads: int) -> None:
    path = _library()
    if path is None:
        return
    options.add_session_config_entry("equibit.threads", str(threads))
    try:
        options.register_custom_ops_library(os.fspath(path))
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise InputError(f"the operator library does not run here: {error}") from error
