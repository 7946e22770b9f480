"""Folders of image files in ImageNet's layout, decoded batch by batch.

Layout: `train/CLASS/FILE` and `val/CLASS/FILE` (or `test/`) below `<root>/imagefolder`, where CLASS is the name of
a class and FILE a JPEG, PNG, WebP, BMP or PPM image. The labels number the classes of `train` in sorted order. Hidden
files and files that are not images by their suffix are left out; links are followed.

Source of the layout, mean and std: O. Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV
115(3), 2015, arXiv:1409.0575, and common practice since.
"""

import copy
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from equibit.data.augment import FILE_KINDS, require_fit
from equibit.data.dataset import Dataset, FileCheck
from equibit.data.decode import RESIZES, SUFFIXES, Decoder
from equibit.errors import FileError, FormatError, InputError, unknown

NAME = "imagefolder"
TITLE = "imagefolder: any folder of images in ImageNet's layout, cropped to 3x224x224"
SIZE = 224
IN_SHAPE = (3, SIZE, SIZE)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPTIONS = ("path", "size", "resize", "workers", "broken")
BROKEN = ("raise", "skip")
_TEST_FOLDERS = ("val", "test")
_MOST_WORKERS = 16

_Batch = tuple[Tensor, Tensor, list[tuple[str, str]]]  # images, labels, and (file, what is wrong with it)


class FolderSplit:
    """A split whose images are decoded when a batch needs them, in the processes of a DataLoader.

    What is random in an image depends on the seed and on its index alone, so the number of workers, their order and
    the batch an image falls into change nothing.

    Args:
        folder: what `files` are relative to.
        files: (N,), encoded file names: an array, because workers would copy a list when they count references.
        labels: int64 (N,).
        decode: how a file becomes pixels.
        workers: processes that decode; 0 decodes in this one.
        broken: "raise" or "skip" a file that is not a whole image.
    """

    def __init__(
        self, folder: Path, files: npt.NDArray[np.bytes_], labels: Tensor, *, decode: Decoder, workers: int, broken: str
    ) -> None:
        self.labels = labels
        self.skipped: list[str] = []
        self._folder, self._files, self._decode = folder, files, decode
        self._workers, self._broken = workers, broken
        self._device = torch.device("cpu")

    def __len__(self) -> int:
        """The number of files, broken ones included."""
        return len(self._files)

    def to(self, device: torch.device | str) -> Self:
        """The same files, decoded for `device`, with one list of skipped files; see `Split.to`."""
        moved = copy.copy(self)
        moved._device = torch.device(device)
        return moved

    def subset(self, index: Tensor) -> Self:
        """Some of the files, with a list of skipped files of their own; see `Split.subset`."""
        chosen = copy.copy(self)
        chosen._files, chosen.labels, chosen.skipped = self._files[index.numpy()], self.labels[index], []
        return chosen

    def batches(
        self, indices: Sequence[Tensor], *, augment: str = "none", seed: int = 0, part: slice = slice(None)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Decoded and augmented by the workers, some batches ahead; see `Split.batches`."""
        require_fit(augment, FILE_KINDS, "image files")
        loader = DataLoader(
            _Batches(self, [index.cpu()[part] for index in indices], augment, seed),
            batch_size=None,
            num_workers=self._workers,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # else it draws from torch's global one, and dropout depends on it
        )
        for images, labels, broken in loader:
            self._leave_out(broken)
            if len(images):
                yield images.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)

    def _leave_out(self, broken: list[tuple[str, str]]) -> None:
        for file, message in broken:
            if self._broken == "raise":
                raise FormatError(f"{message} Remove it, or set data.broken to skip.")
            if file not in self.skipped:
                self.skipped.append(file)

    def decode(self, index: int, augment: str, seed: int) -> Tensor:
        """One image, uint8 (3, size, size); raises a FormatError if its file is broken."""
        random = np.random.default_rng((seed, index))
        return torch.from_numpy(self._decode(self.file(index), augment, random))

    def file(self, index: int) -> Path:
        """The file of one image."""
        return self._folder / os.fsdecode(bytes(self._files[index]))

    def blank(self) -> Tensor:
        """No images, with the shape of images: uint8 (0, 3, size, size)."""
        return torch.empty(0, 3, self._decode.size, self._decode.size, dtype=torch.uint8)


class _Batches(TorchDataset[_Batch]):
    """The batches of one pass over a split, as a DataLoader takes them: one item is one batch."""

    def __init__(self, split: FolderSplit, indices: Sequence[Tensor], augment: str, seed: int) -> None:
        self._split, self._indices, self._augment, self._seed = split, indices, augment, seed

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, step: int) -> _Batch:
        """Broken files are returned, not raised: an error that crosses processes becomes a page of text."""
        images, labels, broken = [], [], []
        for index in self._indices[step].tolist():
            try:
                images.append(self._split.decode(index, self._augment, self._seed))
                labels.append(int(self._split.labels[index]))
            except FormatError as error:
                broken.append((str(self._split.file(index)), str(error)))
        stacked = torch.stack(images) if images else self._split.blank()
        return stacked, torch.tensor(labels, dtype=torch.int64), broken


def load(
    root: Path,
    *,
    path: str | None = None,
    size: int = SIZE,
    resize: str = "shorter_side",
    workers: int | None = None,
    broken: str = "raise",
) -> Dataset:
    """List the files of an image folder; nothing is decoded yet.

    Args:
        root: the folder that holds the data sets.
        path: the folder of `train` and `val`, relative to `root` unless absolute; None for "imagefolder".
        size: side of the square images that batches hold.
        resize: "shorter_side" or "square", see `Decoder`.
        workers: processes that decode; None for one per core that this process may use, but one, at most 16.
        broken: "raise" or "skip" a file that is not a whole image.

    Raises:
        InputError: an option outside what is allowed.
        FileError: `train`, or both `val` and `test`, are missing.
        FormatError: there are no classes, one has no images, or a test class is not a training class.
    """
    if size < 1 or (workers is not None and workers < 0):
        raise InputError(f"data.size is {size} and data.workers {workers}; they must be at least 1 and 0.")
    for key, value, allowed in (("data.resize:", resize, RESIZES), ("data.broken:", broken, BROKEN)):
        if value not in allowed:
            raise unknown(key, value, allowed)
    folder = root / (path or NAME)
    classes = _classes(folder / "train")
    options: dict[str, Any] = {
        "decode": Decoder(size, resize),
        "workers": _usable_cores() if workers is None else workers,
        "broken": broken,
    }
    train, test = (FolderSplit(half, *_list(half, classes), **options) for half in (folder / "train", _test(folder)))
    return Dataset(NAME, train, test, classes, MEAN, STD, (3, size, size))


def _usable_cores() -> int:
    """The cores of this process but one, which feeds the device; at most 16, where memory bandwidth ends it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores - 1, _MOST_WORKERS)


def _test(folder: Path) -> Path:
    """The folder of test images: `val`, or `test` if only that is there."""
    return next((folder / name for name in _TEST_FOLDERS if (folder / name).is_dir()), folder / _TEST_FOLDERS[0])


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, hidden entries left out, by name."""
    try:
        with os.scandir(folder) as found:
            return sorted((e for e in found if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise FileError(f"cannot read {folder}: {error.strerror or error}. {_remedy()}") from error


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(entry.name for entry in _entries(folder) if entry.is_dir())
    if not classes:
        raise FormatError(f"{folder}: found no folders, expected one for each class. {_remedy()}")
    return classes


def _list(folder: Path, classes: tuple[str, ...]) -> tuple[npt.NDArray[np.bytes_], Tensor]:
    """The image files below a folder and the numbers of their classes; by class, then by name."""
    files, labels = [], []
    for name in _classes(folder):
        if name not in classes:
            raise FormatError(f"{folder / name}: found the class {name!r}, which has no folder below train.")
        # A broken link counts as an image, so that it is reported.
        images = [e.name for e in _entries(folder / name) if _is_image(e.name) and not e.is_dir()]
        if not images:
            raise FormatError(f"{folder / name}: found no images, expected files that end in {' '.join(SUFFIXES)}.")
        files += [os.fsencode(f"{name}/{image}") for image in images]
        labels += [classes.index(name)] * len(images)
    return np.array(files), torch.tensor(labels)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def check(root: Path) -> list[FileCheck]:
    """Whether both halves lie there in the expected layout, and how many images they hold; none is decoded."""
    folder = root / NAME
    return [_check_half(folder, half) for half in (folder / "train", _test(folder))]


def _check_half(folder: Path, half: Path) -> FileCheck:
    try:
        _, labels = _list(half, _classes(folder / "train"))
    except (FileError, FormatError) as error:
        return FileCheck(str(half), half.is_dir(), False, None, str(error))
    counts = np.unique(labels.numpy(), return_counts=True)[1]
    message = f"{len(counts)} classes of {int(counts.min()):,} to {int(counts.max()):,} images"
    return FileCheck(str(half), True, True, len(labels), message)


def fetch(root: Path, base_url: str = "", progress: Any = False) -> list[Path]:
    """Always a FileError: the images are the user's own, or ImageNet's, which has a licence to accept."""
    raise FileError(f"an image folder cannot be downloaded. {_remedy()} ImageNet: accept its terms on image-net.org.")


def _remedy() -> str:
    return (
        f"Put the images into train/CLASS/ and val/CLASS/ below {NAME}/ in EQUIBIT_DATA (now: "
        f"{os.environ.get('EQUIBIT_DATA') or 'not set'}), or name another folder as data.path."
    )
