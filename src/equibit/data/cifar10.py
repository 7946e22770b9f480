"""CIFAR-10, binary version: 50,000 + 10,000 colour images in 10 classes, 32x32.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", University of Toronto, 2009.
Files: `<root>/cifar-10-batches-bin/`. A record is one label byte, then 1,024 red, 1,024 green and 1,024 blue
bytes, row by row. The Python version is not read: it is a pickle, and unpickling runs whatever is in it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equibit.data import download, files
from equibit.data.dataset import Dataset, FileCheck
from equibit.data.files import PublishedFile
from equibit.errors import FileError, FormatError

NAME = "cifar10"
TITLE = "CIFAR-10: small photographs, 50,000 + 10,000 images, 3x32x32"
BASE_URL = "https://www.cs.toronto.edu/~kriz/"
ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
RECORD = 1 + 3 * 32 * 32
META = "batches.meta.txt"


def _parse(path: Path, content: bytes) -> files.Bytes:
    if len(content) % RECORD:
        raise FormatError(
            f"{path}: found {len(content):,} bytes, expected a whole number of {RECORD:,}-byte records "
            "(one label, 3x32x32 pixels)."
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    files.check_labels(path, records[:, 0], len(CLASSES))
    return records


def _batch(name: str, training: bool, checksum: str) -> PublishedFile:
    return PublishedFile(name, 10_000, training, "sha1", checksum, _parse)


FILES = (
    _batch("data_batch_1.bin", True, "aadd24acce27caa71bf4b10992e9e7b2d74c2540"),
    _batch("data_batch_2.bin", True, "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795"),
    _batch("data_batch_3.bin", True, "1dd00a74ab1d17a6e7d73e185b69dbf31242f295"),
    _batch("data_batch_4.bin", True, "aab85764eb3584312d3c7f65fd2fd016e36a258e"),
    _batch("data_batch_5.bin", True, "26e2849e66a845b7f1e4614ae70f4889ae604628"),
    _batch("test_batch.bin", False, "67eb016db431130d61cd03c7ad570b013799c88c"),
)


def load(root: Path) -> Dataset:
    """Read CIFAR-10 from `root`/cifar-10-batches-bin.

    Raises:
        FileError: a file is missing.
        FormatError: a file is damaged, or the class names are not CIFAR-10's.
    """
    folder = root / FOLDER
    _check_classes(folder / META)
    train_images, train_labels = _split(folder, [file for file in FILES if file.training])
    test_images, test_labels = _split(folder, [file for file in FILES if not file.training])
    return Dataset(NAME, train_images, train_labels, test_images, test_labels, CLASSES, MEAN, STD)


def _split(folder: Path, batches: list[PublishedFile]) -> tuple[Tensor, Tensor]:
    records = np.concatenate([files.read_or_warn(folder, file, NAME) for file in batches])
    images = records[:, 1:].reshape(-1, 3, 32, 32).copy()
    return torch.from_numpy(images), torch.from_numpy(records[:, 0].astype(np.int64))


def _check_classes(path: Path) -> None:
    lines = files.read_bytes(path, NAME).decode("ascii", errors="replace").splitlines()
    found = tuple(line.strip() for line in lines if line.strip())
    if found != CLASSES:
        raise FormatError(f"{path}: found the class names {', '.join(found)}; expected {', '.join(CLASSES)}.")


def check(root: Path) -> list[FileCheck]:
    """Compare the six batches with the published ones, and the class names."""
    return [*(files.check(root / FOLDER, file, NAME) for file in FILES), _check_meta(root / FOLDER / META)]


def _check_meta(path: Path) -> FileCheck:
    try:
        _check_classes(path)
    except (FileError, FormatError) as error:
        return FileCheck(str(path), path.exists(), False, None, str(error))
    return FileCheck(str(path), True, True, None, "holds the published class names")


def fetch(root: Path, base_url: str = BASE_URL, progress: Any = False) -> list[Path]:
    """Download and unpack the archive unless all files are there as published; see `equibit.data.fetch`.

    The unpacked files are checked one by one before any of them takes its place, so a bad archive changes
    nothing.
    """
    folder = root / FOLDER
    names = [*(file.name for file in FILES), META]
    if not all(result.checksum_ok for result in check(root)):
        with download.staging(root) as staged:
            archive = download.file(base_url, ARCHIVE, staged, known_hash=None, belongs=folder, progress=progress)
            download.extract(archive, {f"{FOLDER}/{name}": staged / FOLDER / name for name in names})
            _require_published(staged)
            folder.mkdir(exist_ok=True)
            for name in names:
                (staged / FOLDER / name).replace(folder / name)
    return [folder / name for name in names]


def _require_published(staged: Path) -> None:
    for result in check(staged):
        if not result.checksum_ok:
            raise FormatError(f"{ARCHIVE} is not the published archive: {result.message}")
