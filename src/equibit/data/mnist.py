"""MNIST and Fashion-MNIST: 60,000 + 10,000 grey images each, 28x28, of handwritten digits and of clothes.

Sources: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86(11), 1998. H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for
Benchmarking Machine Learning Algorithms", 2017, arXiv:1708.07747. Files: `<root>/mnist/` and `<root>/fashion-mnist/`,
the four idx files each, gzipped as published; those of MNIST also unpacked.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equibit.data import download, files, idx
from equibit.data.dataset import Dataset, FileCheck, TensorSplit
from equibit.data.files import PublishedFile
from equibit.errors import FormatError

IN_SHAPE = (1, 28, 28)
_CLASSES = 10


@dataclass(frozen=True)
class Mnist:
    """One set of the MNIST family.

    Attributes:
        name: the registry name.
        title: one line for people.
        folder: below the root.
        base_url: the address that holds the files.
        classes: one name per label.
        published: the files of training images, training labels, test images and test labels.
        mean: of training pixels scaled to [0, 1].
        std: of training pixels scaled to [0, 1].
    """

    name: str
    title: str
    folder: str
    base_url: str
    classes: tuple[str, ...]
    published: tuple[PublishedFile, PublishedFile, PublishedFile, PublishedFile]
    mean: tuple[float]
    std: tuple[float]
    in_shape: tuple[int, int, int] = IN_SHAPE

    def load(self, root: Path) -> Dataset:
        """Read the set from its folder below `root`.

        Raises:
            FileError: a file is missing.
            FormatError: a file is damaged, or images and labels do not match.
        """
        folder = root / self.folder
        train, test = self._split(folder, *self.published[:2]), self._split(folder, *self.published[2:])
        return Dataset(self.name, train, test, self.classes, self.mean, self.std, self.in_shape)

    def _split(self, folder: Path, images_file: PublishedFile, labels_file: PublishedFile) -> TensorSplit:
        images = files.read_or_warn(folder, images_file, self.name)
        labels = files.read_or_warn(folder, labels_file, self.name)
        if len(images) != len(labels):
            raise FormatError(
                f"{files.locate(folder, labels_file)}: found {len(labels):,} labels, expected {len(images):,}, "
                f"one for each image in {files.locate(folder, images_file).name}."
            )
        return TensorSplit(torch.from_numpy(images[:, None].copy()), torch.from_numpy(labels.astype(np.int64)))

    def check(self, root: Path) -> list[FileCheck]:
        """Compare the four files with the published ones."""
        return [files.check(root / self.folder, file, self.name) for file in self.published]

    def fetch(self, root: Path, base_url: str | None = None, progress: Any = False) -> list[Path]:
        """Download what is missing or altered; see `equibit.data.fetch`."""
        return [
            self._fetch_one(base_url or self.base_url, file, root / self.folder, progress) for file in self.published
        ]

    def _fetch_one(self, base_url: str, file: PublishedFile, folder: Path, progress: Any) -> Path:
        found = files.check(folder, file, self.name)
        if found.checksum_ok:
            return Path(found.file)
        known_hash = f"{file.algorithm}:{file.checksum}"
        return download.file(base_url, file.name, folder, known_hash=known_hash, belongs=folder, progress=progress)


def _parse_images(path: Path, content: bytes) -> files.Bytes:
    return idx.parse(path, content, record_shape=IN_SHAPE[1:])


def _parse_labels(path: Path, content: bytes) -> files.Bytes:
    labels = idx.parse(path, content, record_shape=())
    files.check_labels(path, labels, _CLASSES)
    return labels


def _images(name: str, records: int, checksum: str, unpacked: str | None = None) -> PublishedFile:
    return PublishedFile(name, records, name.startswith("train"), "md5", checksum, _parse_images, unpacked)


def _labels(name: str, records: int, checksum: str, unpacked: str | None = None) -> PublishedFile:
    return PublishedFile(name, records, name.startswith("train"), "md5", checksum, _parse_labels, unpacked, "labels")


# The first checksum of a file is the published one, of the .gz; the second is of the same file unpacked.
MNIST = Mnist(
    name="mnist",
    title="MNIST: handwritten digits, 60,000 + 10,000 images, 1x28x28",
    folder="mnist",
    base_url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    classes=tuple("0123456789"),
    published=(
        _images(
            "train-images-idx3-ubyte.gz", 60_000, "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"
        ),
        _labels(
            "train-labels-idx1-ubyte.gz", 60_000, "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"
        ),
        _images(
            "t10k-images-idx3-ubyte.gz", 10_000, "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"
        ),
        _labels(
            "t10k-labels-idx1-ubyte.gz", 10_000, "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"
        ),
    ),
    mean=(0.1307,),
    std=(0.3081,),
)

FASHION_MNIST = Mnist(
    name="fashion_mnist",
    title="Fashion-MNIST: clothes, 60,000 + 10,000 images, 1x28x28",
    folder="fashion-mnist",
    base_url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # the published one; the content is checked
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    published=(
        _images("train-images-idx3-ubyte.gz", 60_000, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        _labels("train-labels-idx1-ubyte.gz", 60_000, "25c81989df183df01b3e8a0aad5dffbe"),
        _images("t10k-images-idx3-ubyte.gz", 10_000, "bef4ecab320f06d8554ea6380940ec79"),
        _labels("t10k-labels-idx1-ubyte.gz", 10_000, "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    mean=(0.2860,),
    std=(0.3530,),
)
