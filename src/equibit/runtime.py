"""Running exported files: an onnxruntime session, with our kernels where they are built. Needs no torch."""

import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import onnxruntime

import equibit
from equibit.errors import FileError, FormatError, InputError, StateError

_LIBRARY = {"darwin": "libequibit_ort.dylib", "win32": "equibit_ort.dll"}.get(sys.platform, "libequibit_ort.so")

# Inside the functions of layers between which a file has words: the signs in X as floats, and which signs of Y are +1.
SIGNS_TAKEN, SIGNS_GIVEN = "signs_taken", "signs_given"


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
        _register(options, threads, path)
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
    `equibit.threads`, by the number of processors without it. The entry `equibit.operators`, names with a comma behind
    each, keeps it from registering others than a file uses, which takes the runtime longer than most files do.

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


def _register(options: onnxruntime.SessionOptions, threads: int, model: str | os.PathLike[str] | bytes) -> None:
    library = _library()
    if library is None:
        return
    options.add_session_config_entry("equibit.threads", str(threads))
    names = "".join(f"{name}," for name in _functions(model))
    if 0 < len(names) <= _LONGEST_ENTRY:  # otherwise all are registered
        options.add_session_config_entry("equibit.operators", names)
    try:
        options.register_custom_ops_library(os.fspath(library))
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise InputError(f"the operator library does not run here: {error}") from error


_LONGEST_ENTRY = 2048  # characters that every onnxruntime takes
# Field numbers of the messages ModelProto and FunctionProto of ONNX, and what follows a tag of protobuf.
_FUNCTIONS, _NAME, _DOMAIN = 25, 1, 10
_VARINT, _EIGHT_BYTES, _SIZED, _FOUR_BYTES = 0, 1, 2, 5


def _functions(model: str | os.PathLike[str] | bytes) -> list[str]:
    """Names of our functions in a file, one for each of our operators; empty where the file is damaged.

    The graph is skipped, so that no weight is read. onnxruntime says later what is wrong with the file.
    """
    try:
        if isinstance(model, bytes):
            return list(_function_names(model))
        with Path(model).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return list(_function_names(data))
    except (OSError, ValueError, LookupError):
        return []


def _function_names(data: bytes | mmap.mmap) -> Iterator[str]:
    for number, start, end in _messages(data, 0, len(data)):
        if number == _FUNCTIONS:
            parts = {inner: data[first:last] for inner, first, last in _messages(data, start, end)}
            if parts.get(_DOMAIN) == b"equibit":
                yield parts[_NAME].decode()


def _messages(data: bytes | mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of every field with a size in a message of protobuf."""
    while at < end:
        tag, at = _varint(data, at)
        if tag & 7 == _SIZED:
            size, at = _varint(data, at)
            yield tag >> 3, at, at + size
            at += size
        elif tag & 7 == _VARINT:
            _, at = _varint(data, at)
        elif tag & 7 in (_EIGHT_BYTES, _FOUR_BYTES):
            at += 8 if tag & 7 == _EIGHT_BYTES else 4
        else:
            raise ValueError("no protobuf")


def _varint(data: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    """A number, seven bits to a byte, and where it ends."""
    value = 0
    for place in range(10):  # enough for 64 bits
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("no protobuf")
