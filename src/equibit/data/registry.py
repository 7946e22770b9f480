"""The table of data sets."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equibit.data import cifar10, digits, files, mnist
from equibit.data.dataset import Dataset, FileCheck
from equibit.errors import unknown


@dataclass(frozen=True)
class DataEntry:
    """One data set: what it is called and how it is loaded, checked and downloaded.

    Attributes:
        name: the key.
        title: one line for people.
        classes: one name per label.
        in_shape: (channels, height, width) of an image.
        load: from the folder that holds the data sets.
        check: compares the files below that folder with the published ones.
        fetch: downloads to that folder; takes `base_url` and `progress`.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    in_shape: tuple[int, int, int]
    load: Callable[[Path], Dataset]
    check: Callable[[Path], list[FileCheck]]
    fetch: Callable[..., list[Path]]


_TABLE = (
    DataEntry(cifar10.NAME, cifar10.TITLE, cifar10.CLASSES, (3, 32, 32), cifar10.load, cifar10.check, cifar10.fetch),
    DataEntry(digits.NAME, digits.TITLE, digits.CLASSES, (1, 8, 8), digits.load, digits.check, digits.fetch),
    DataEntry(mnist.NAME, mnist.TITLE, mnist.CLASSES, (1, 28, 28), mnist.load, mnist.check, mnist.fetch),
)


def entries() -> tuple[DataEntry, ...]:
    """Every data set, by name."""
    return _TABLE


def names() -> list[str]:
    """The names of the data sets, sorted."""
    return sorted(known.name for known in _TABLE)


def entry(name: str) -> DataEntry:
    """A data set's entry, without loading it.

    Raises:
        InputError: unknown name.
    """
    for known in _TABLE:
        if known.name == name:
            return known
    raise unknown("data set", name, names())


def load(name: str, root: Path | str | None = None) -> Dataset:
    """Load a data set whole into memory.

    Args:
        name: one of `names()`.
        root: the folder that holds the data sets; None for `files.root()`, that is `EQUIBIT_DATA` or the
            cache.

    Raises:
        InputError: unknown name.
        FileError: a file is missing; says how to get it.
        FormatError: a file is damaged, or a training file is not whole.

    Warns:
        DataWarning: a file differs from the published one; says how many images it holds.
    """
    return entry(name).load(_folder(root))


def check(name: str, root: Path | str | None = None) -> list[FileCheck]:
    """Compare every file of a data set with the published one; findings are returned, not raised.

    Raises:
        InputError: unknown name.
    """
    return entry(name).check(_folder(root))


def fetch(
    name: str, root: Path | str | None = None, *, base_url: str | None = None, progress: Any = False
) -> list[Path]:
    """Download the published files of a data set; files that are there as published are left alone.

    Args:
        name: one of `names()`.
        root: as for `load`; created if needed. An altered file is replaced by the published one.
        base_url: the address that holds the files; None for the published one.
        progress: False, True (needs tqdm), or an object as pooch takes it (`total`, `update`, `reset`,
            `close`).

    Returns:
        The files of the data set; none for an embedded one.

    Raises:
        InputError: unknown name.
        FileError: no network, or the folder cannot be written; says where to put the files by hand.
        FormatError: what was downloaded is not the published file; nothing of it is kept.
    """
    source = {} if base_url is None else {"base_url": base_url}
    return entry(name).fetch(_folder(root), progress=progress, **source)


def _folder(root: Path | str | None) -> Path:
    return files.root() if root is None else Path(root)
