"""Running exported files: an onnxruntime session, with our kernels where they are built. Needs no torch."""

import os
from pathlib import Path

import onnxruntime

from equibit.errors import FileError, FormatError, InputError, StateError


class InferenceSession(onnxruntime.InferenceSession):  # type: ignore[misc]
    """An `onnxruntime.InferenceSession` on the CPU.

    A stock session until the operator library exists: the functions inside the file do the work, in float.

    Args:
        path: An exported file, or its bytes.
        threads: Threads of one run.

    Raises:
        InputError: `threads` is below 1.
        FileError: No file at `path`.
        FormatError: onnxruntime cannot load the file.
    """

    def __init__(self, path: str | os.PathLike[str] | bytes, threads: int = 1) -> None:
        if threads < 1:
            raise InputError(f"threads is {threads}; give 1 or more.")
        if not isinstance(path, bytes) and not Path(path).is_file():
            raise FileError(f"no file at {path}.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            super().__init__(
                path if isinstance(path, bytes) else os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions share no base class
            name = "the model" if isinstance(path, bytes) else path
            raise FormatError(f"onnxruntime cannot load {name}: {error}") from error


def library_path() -> Path:
    """Path of the library with our operators, for onnxruntime in any language.

    Raises:
        StateError: This build has no operator library.
    """
    raise StateError("this build has no operator library yet; stock onnxruntime runs the exported files as they are.")
