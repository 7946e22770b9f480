"""MNIST: 60,000 + 10,000 grey images of handwritten digits, 28x28.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86(11), 1998. Files: `<root>/mnist/`, the four idx files, gzipped as published or
unpacked.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equibit.data import download, files, idx
from equibit.data.dataset import Dataset, FileCheck
from equibit.data.files import PublishedFile
from equibit.errors import FormatError

NAME = "mnist"
TITLE = "MNIST: handwritten digits, 60,000 + 10,000 images, 1x28x28"
BASE_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
CLASSES = tuple("0123456789")
MEAN, STD = (0.1307,), (0.3081,)


def _images(path: Path, content: bytes) -> files.Bytes:
    return idx.parse(path, content, record_shape=(28, 28))


def _labels(path: Path, content: bytes) -> files.Bytes:
    labels = idx.parse(path, content, record_shape=())
    files.check_labels(path, labels, len(CLASSES))
    return labels


# The checksums of the .gz files are the published ones; those of the content are of the same files unpacked.
FILES = (
    PublishedFile(
        name="train-images-idx3-ubyte.gz",
        records=60_000,
        training=True,
        algorithm="md5",
        checksum="f68b3c2dcbeaaa9fbdd348bbdeb94873",
        parse=_images,
        unpacked="6bbc9ace898e44ae57da46a324031adb",
    ),
    PublishedFile(
        name="train-labels-idx1-ubyte.gz",
        records=60_000,
        training=True,
        algorithm="md5",
        checksum="d53e105ee54ea40749a09fcbcd1e9432",
        parse=_labels,
        unpacked="a25bea736e30d166cdddb491f175f624",
        unit="labels",
    ),
    PublishedFile(
        name="t10k-images-idx3-ubyte.gz",
        records=10_000,
        training=False,
        algorithm="md5",
        checksum="9fb629c4189551a2d022fa330f9573f3",
        parse=_images,
        unpacked="2646ac647ad5339dbf082846283269ea",
    ),
    PublishedFile(
        name="t10k-labels-idx1-ubyte.gz",
        records=10_000,
        training=False,
        algorithm="md5",
        checksum="ec29112dd5afa0611ce80d1b7f02629c",
        parse=_labels,
        unpacked="27ae3e4e09519cfbb04c329615203637",
        unit="labels",
    ),
)


def load(root: Path) -> Dataset:
    """Read MNIST from `root`/mnist.

    Raises:
        FileError: a file is missing.
        FormatError: a file is damaged, or images and labels do not match.
    """
    train_images, train_labels = _split(root / NAME, FILES[0], FILES[1])
    test_images, test_labels = _split(root / NAME, FILES[2], FILES[3])
    return Dataset(NAME, train_images, train_labels, test_images, test_labels, CLASSES, MEAN, STD)


def _split(folder: Path, images_file: PublishedFile, labels_file: PublishedFile) -> tuple[Tensor, Tensor]:
    images = files.read_or_warn(folder, images_file, NAME)
    labels = files.read_or_warn(folder, labels_file, NAME)
    if len(images) != len(labels):
        raise FormatError(
            f"{files.locate(folder, labels_file)}: found {len(labels):,} labels, expected {len(images):,}, "
            f"one for each image in {files.locate(folder, images_file).name}."
        )
    return torch.from_numpy(images[:, None].copy()), torch.from_numpy(labels.astype(np.int64))


def check(root: Path) -> list[FileCheck]:
    """Compare the four files with the published ones."""
    return [files.check(root / NAME, file, NAME) for file in FILES]


def fetch(root: Path, base_url: str = BASE_URL, progress: Any = False) -> list[Path]:
    """Download what is missing or altered; see `equibit.data.fetch`."""
    folder = root / NAME
    return [_fetch_one(base_url, file, folder, progress) for file in FILES]


def _fetch_one(base_url: str, file: PublishedFile, folder: Path, progress: Any) -> Path:
    found = files.check(folder, file, NAME)
    if found.checksum_ok:
        return Path(found.file)
    known_hash = f"{file.algorithm}:{file.checksum}"
    return download.file(base_url, file.name, folder, known_hash=known_hash, belongs=folder, progress=progress)
