"""The table of data sets."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equibit.data import cifar, digits, files, imagefolder, mnist
from equibit.data.augment import FILE_KINDS, TENSOR_KINDS
from equibit.data.cifar import Cifar
from equibit.data.dataset import Dataset, FileCheck
from equibit.data.mnist import Mnist
from equibit.errors import InputError, unknown


@dataclass(frozen=True)
class DataEntry:
    """One data set: what it is called and how it is loaded, checked and downloaded.

    Attributes:
        name: the key.
        title: one line for people.
        classes: one name per label; none if the folder decides, see `equibit.data.classes`.
        in_shape: (channels, height, width) of an image before any option, see `equibit.data.in_shape`.
        load: from the folder that holds the data sets.
        check: compares the files below that folder with the published ones.
        fetch: downloads to that folder; takes `base_url` and `progress`.
        augments: the kinds of augmentation that fit its images.
        options: what `load` takes beyond the folder.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    in_shape: tuple[int, int, int]
    load: Callable[..., Dataset]
    check: Callable[[Path], list[FileCheck]]
    fetch: Callable[..., list[Path]]
    augments: tuple[str, ...] = TENSOR_KINDS
    options: tuple[str, ...] = ()

    def require_options(self, given: Iterable[str]) -> None:
        """Raise an InputError unless every option in `given` is one of the data set's."""
        for option in given:
            if option not in self.options:
                known = ", ".join(self.options) or "none"
                raise InputError(
                    f"data.{option} is set, but {self.name} has no option {option!r}; its options: {known}."
                )


def published(source: Cifar | Mnist) -> DataEntry:
    """The entry of a data set that lies in published files."""
    return DataEntry(
        source.name, source.title, source.classes, source.in_shape, source.load, source.check, source.fetch
    )


_TABLE = (
    published(cifar.CIFAR10),
    published(cifar.CIFAR100),
    DataEntry(digits.NAME, digits.TITLE, digits.CLASSES, digits.IN_SHAPE, digits.load, digits.check, digits.fetch),
    published(mnist.FASHION_MNIST),
    DataEntry(
        imagefolder.NAME,
        imagefolder.TITLE,
        classes=(),
        in_shape=imagefolder.IN_SHAPE,
        load=imagefolder.load,
        check=imagefolder.check,
        fetch=imagefolder.fetch,
        augments=FILE_KINDS,
        options=imagefolder.OPTIONS,
    ),
    published(mnist.MNIST),
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


def load(name: str, root: Path | str | None = None, **options: Any) -> Dataset:
    """Load a data set: whole into memory, or, for an imagefolder, the list of its files.

    Args:
        name: one of `names()`.
        root: the folder that holds the data sets; None for `files.root()`, that is `EQUIBIT_DATA` or the
            cache.
        **options: those of the data set, for example `size`; see its entry's `options`.

    Raises:
        InputError: unknown name, or an option that the data set does not have.
        FileError: a file is missing; says how to get it.
        FormatError: a file is damaged, or a training file is not whole.

    Warns:
        DataWarning: a file differs from the published one; says how many images it holds.
    """
    known = entry(name)
    known.require_options(options)
    return known.load(_folder(root), **options)


def classes(name: str, root: Path | str | None = None, **options: Any) -> tuple[str, ...]:
    """One name per label; only for an imagefolder anything is read. Arguments and errors are those of `load`."""
    return entry(name).classes or load(name, root, **options).classes


def in_shape(name: str, **options: Any) -> tuple[int, int, int]:
    """(channels, height, width) of an image of a data set under its options, without loading it.

    Raises:
        InputError: unknown name.
    """
    channels, height, width = entry(name).in_shape
    return (channels, options.get("size", height), options.get("size", width))


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
