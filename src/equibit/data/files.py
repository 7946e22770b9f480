"""Finding the published files of a data set, reading them whole, and comparing them with what was published.

The rules (structure errors raise, a differing checksum warns and names the image count, training files must
be whole, a test file may hold any whole number of records) are here once, for every data set that lies in
files.
"""

import gzip
import hashlib
import os
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pooch

from equibit.data.dataset import DataWarning, FileCheck
from equibit.errors import FileError, FormatError

Bytes = npt.NDArray[np.uint8]


def root() -> Path:
    """The folder that holds one folder per data set: `EQUIBIT_DATA`, or the user's cache if it is not set."""
    configured = os.environ.get("EQUIBIT_DATA")
    return Path(configured).expanduser() if configured else Path(pooch.os_cache("equibit"))


@dataclass(frozen=True)
class PublishedFile:
    """One file as its authors published it.

    Attributes:
        name: the file name; one that ends in .gz may also lie there unpacked, without that ending, if `unpacked` is
            known.
        records: images (or labels) in the published file.
        training: the file must hold exactly `records`; a test file may hold any whole number of them.
        algorithm: "md5" or "sha1", whichever was published.
        checksum: of the file, in hexadecimal.
        parse: turns the (unpacked) content into an array with one record per row; raises FormatError.
        unpacked: for a .gz file, the checksum of its unpacked content; None if it is not known.
        unit: what a record is, for messages.
    """

    name: str
    records: int
    training: bool
    algorithm: str
    checksum: str
    parse: Callable[[Path, bytes], Bytes]
    unpacked: str | None = None
    unit: str = "images"


@dataclass(frozen=True)
class Records:
    """The records of one file, and whether the file equals the published one."""

    path: Path
    array: Bytes
    as_published: bool


def locate(folder: Path, file: PublishedFile) -> Path:
    """The path of `file` below `folder`: the published name, or the unpacked one if only that is there.

    Unpacked files count only where their checksum is known: others could not be compared with the published ones.
    """
    path = folder / file.name
    plain = folder / file.name.removesuffix(".gz")
    return plain if file.unpacked is not None and plain.exists() and not path.exists() else path


def read_bytes(path: Path, dataset: str) -> bytes:
    """The content of `path`; a FileError that says where data sets come from if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileError(f"{path} is missing. {_remedy(dataset)}") from None
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}. {_remedy(dataset)}") from error


def _remedy(dataset: str) -> str:
    return (
        f"Run `equibit data fetch {dataset}`, or set EQUIBIT_DATA to the folder that holds the data sets "
        f"(now: {os.environ.get('EQUIBIT_DATA') or 'not set'})."
    )


def read(folder: Path, file: PublishedFile, dataset: str) -> Records:
    """Read and check one file.

    Raises:
        FileError: the file is missing or unreadable.
        FormatError: its structure is not that of `file`, or a training file is not whole.
    """
    path = locate(folder, file)
    content = read_bytes(path, dataset)
    expected = file.checksum if path.name == file.name else file.unpacked
    as_published = hashlib.new(file.algorithm, content, usedforsecurity=False).hexdigest() == expected
    if path.suffix == ".gz":
        content = _gunzip(path, content)
    array = file.parse(path, content)
    if len(array) == 0 or (file.training and len(array) != file.records):
        wanted = f"{file.records:,}" if file.training else "at least 1"
        raise FormatError(f"{path}: found {len(array):,} {file.unit}, expected {wanted}.")
    return Records(path, array, as_published)


def read_or_warn(folder: Path, file: PublishedFile, dataset: str) -> Bytes:
    """Like `read`, and a DataWarning with the image count if the file is not the published one."""
    records = read(folder, file, dataset)
    if not records.as_published:
        warnings.warn(f"{records.path}: {_difference(records, file)}", DataWarning, stacklevel=2)
    return records.array


def _difference(records: Records, file: PublishedFile) -> str:
    return (
        f"its {file.algorithm} checksum differs from the published one; "
        f"it holds {len(records.array):,} {file.unit}, the published file {file.records:,}"
    )


def _gunzip(path: Path, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: found a damaged gzip file ({error}), expected a whole one.") from error


def check(folder: Path, file: PublishedFile, dataset: str) -> FileCheck:
    """Compare one file with the published one; never raises for what it finds."""
    path = str(locate(folder, file))
    try:
        records = read(folder, file, dataset)
    except FileError as error:
        return FileCheck(path, Path(path).exists(), False, None, str(error))
    except FormatError as error:
        return FileCheck(path, True, False, None, str(error))
    message = "equals the published file" if records.as_published else _difference(records, file)
    return FileCheck(path, True, records.as_published, len(records.array), message)


def check_labels(path: Path, labels: npt.NDArray[Any], classes: int) -> None:
    """Raise a FormatError that names the first label outside 0..classes-1."""
    wrong = np.flatnonzero(labels >= classes)
    if wrong.size:
        first = int(wrong[0])
        raise FormatError(f"{path}: found label {labels[first]} in record {first}, expected 0..{classes - 1}.")
