"""Digits: 1,797 grey images of handwritten digits, 8x8, embedded in scikit-learn; needs no download.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
1998 (its test part). The authors' training part is not embedded, so the split is ours: stratified, fixed
seed.
"""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from equibit.data.dataset import Dataset, DataWarning, FileCheck, TensorSplit

NAME = "digits"
TITLE = "digits: handwritten digits embedded in scikit-learn, 1,437 + 360 images, 1x8x8"
CLASSES = tuple("0123456789")
MEAN, STD = (0.3054,), (0.3760,)
IN_SHAPE = (1, 8, 8)
TEST_IMAGES = 360
SPLIT_SEED = 0
RECORDS = 1797
SHA1 = "4ccdbda04941cdafb1704b9de5acf9900a504ca4"  # of the bytes of the uint8 images, then of the uint8 labels
_FULL_SCALE = 16  # the published pixels are 0..16

Bytes = npt.NDArray[np.uint8]


def _read() -> tuple[Bytes, Bytes]:
    """Images as published, uint8 (1797, 8, 8) of 0..16, and labels, uint8 (1797,)."""
    bunch = load_digits()
    return bunch.images.astype(np.uint8), bunch.target.astype(np.uint8)


def _as_published(images: Bytes, labels: Bytes) -> bool:
    return hashlib.sha1(images.tobytes() + labels.tobytes(), usedforsecurity=False).hexdigest() == SHA1


def load(root: Path) -> Dataset:
    """The digits; `root` is not used. Pixels are scaled from 0..16 to 0..255, rounded half up."""
    images, labels = _read()
    if not _as_published(images, labels):
        warnings.warn(_message(False, len(images)), DataWarning, stacklevel=2)
    scaled = ((images.astype(np.int64) * 255 + _FULL_SCALE // 2) // _FULL_SCALE).astype(np.uint8)
    pixels, targets = torch.from_numpy(scaled[:, None]), torch.from_numpy(labels.astype(np.int64))
    train, test = (TensorSplit(pixels[index], targets[index]) for index in _split(labels))
    return Dataset(NAME, train, test, CLASSES, MEAN, STD, IN_SHAPE)


def _split(labels: Bytes) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the training and of the test images, each ascending."""
    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_IMAGES, stratify=labels, random_state=SPLIT_SEED
    )
    return torch.from_numpy(np.sort(train)), torch.from_numpy(np.sort(test))


def _message(as_published: bool, images: int) -> str:
    if as_published:
        return "embedded in scikit-learn, as expected"
    return f"not the digits known from scikit-learn: {images:,} images, expected {RECORDS:,} known by checksum"


def check(root: Path) -> list[FileCheck]:
    """Compare the embedded images with the known ones; `root` is not used."""
    images, labels = _read()
    ok = _as_published(images, labels)
    return [FileCheck("scikit-learn: load_digits", True, ok, len(images), _message(ok, len(images)))]


def fetch(root: Path, base_url: str = "", progress: Any = False) -> list[Path]:
    """Nothing to download: the images are embedded in scikit-learn."""
    return []
