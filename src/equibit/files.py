"""Files that are whole or absent, whenever the process is killed."""

import os
from collections.abc import Callable
from pathlib import Path

from equibit.errors import FileError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file, syncs it, renames it to `path` and syncs the folder.

    Raises:
        FileError: The file cannot be written; what was at `path` before is unchanged.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        try:
            write(temporary)
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}.") from error


def write_text(path: Path, text: str) -> None:
    """A text file, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """A binary file, atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
