"""CIFAR-10 and CIFAR-100, binary version: 50,000 + 10,000 colour images each, 32x32, in 10 and 100 classes.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", University of Toronto, 2009.
Files: `<root>/cifar-10-batches-bin/` and `<root>/cifar-100-binary/`. A record is its label bytes, then 1,024 red,
1,024 green and 1,024 blue bytes, row by row. The label is the last label byte: CIFAR-100 puts the superclass (20
coarse labels, not used here) before the class. The Python version is not read: it is a pickle, and unpickling runs
whatever is in it.
"""

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equibit.data import download, files
from equibit.data.dataset import Dataset, FileCheck, TensorSplit
from equibit.data.files import PublishedFile
from equibit.errors import FileError, FormatError

BASE_URL = "https://www.cs.toronto.edu/~kriz/"
IN_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Cifar:
    """One of the two sets.

    Attributes:
        name: the registry name.
        title: one line for people.
        archive: the published .tar.gz.
        folder: the one folder in it, and below the root.
        names_file: in the folder, the class names in order of their labels.
        classes: what it must hold.
        label_bytes: before the pixels of a record; the last of them is the label.
        batches: the files of records.
        mean: per channel, of training pixels scaled to [0, 1].
        std: per channel, likewise.
    """

    name: str
    title: str
    archive: str
    folder: str
    names_file: str
    classes: tuple[str, ...]
    label_bytes: int
    batches: tuple[PublishedFile, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    in_shape: tuple[int, int, int] = IN_SHAPE

    def load(self, root: Path) -> Dataset:
        """Read the set from its folder below `root`.

        Raises:
            FileError: a file is missing.
            FormatError: a file is damaged, or the class names are not the published ones.
        """
        self._check_names(root / self.folder / self.names_file)
        train, test = (self._split(root / self.folder, training) for training in (True, False))
        return Dataset(self.name, train, test, self.classes, self.mean, self.std, self.in_shape)

    def _split(self, folder: Path, training: bool) -> TensorSplit:
        batches = [files.read_or_warn(folder, file, self.name) for file in self.batches if file.training == training]
        records = np.concatenate(batches)
        images = records[:, self.label_bytes :].reshape(-1, *self.in_shape).copy()
        labels = records[:, self.label_bytes - 1].astype(np.int64)
        return TensorSplit(torch.from_numpy(images), torch.from_numpy(labels))

    def _check_names(self, path: Path) -> None:
        lines = files.read_bytes(path, self.name).decode("ascii", errors="replace").splitlines()
        found = tuple(line.strip() for line in lines if line.strip())
        for number, (given, wanted) in enumerate(zip_longest(found, self.classes, fillvalue="nothing"), start=1):
            if given != wanted:
                raise FormatError(f"{path}: found {given} as class name {number}, expected {wanted}.")

    def check(self, root: Path) -> list[FileCheck]:
        """Compare the batches with the published ones, and the class names."""
        folder = root / self.folder
        batches = [files.check(folder, file, self.name) for file in self.batches]
        return [*batches, self._check_names_file(folder / self.names_file)]

    def _check_names_file(self, path: Path) -> FileCheck:
        try:
            self._check_names(path)
        except (FileError, FormatError) as error:
            return FileCheck(str(path), path.exists(), False, None, str(error))
        return FileCheck(str(path), True, True, None, "holds the published class names")

    def fetch(self, root: Path, base_url: str = BASE_URL, progress: Any = False) -> list[Path]:
        """Download and unpack the archive unless all files are there as published; see `equibit.data.fetch`.

        The unpacked files are checked one by one before any of them takes its place, so a bad archive changes
        nothing.
        """
        names = [*(file.name for file in self.batches), self.names_file]
        if not all(result.checksum_ok for result in self.check(root)):
            with download.staging(root) as staged:
                self._unpack(base_url, names, root, staged, progress)
                (root / self.folder).mkdir(exist_ok=True)
                for name in names:
                    (staged / self.folder / name).replace(root / self.folder / name)
        return [root / self.folder / name for name in names]

    def _unpack(self, base_url: str, names: list[str], root: Path, staged: Path, progress: Any) -> None:
        """The published files below `staged`, or a FormatError."""
        belongs = root / self.folder
        archive = download.file(base_url, self.archive, staged, known_hash=None, belongs=belongs, progress=progress)
        download.extract(archive, {f"{self.folder}/{name}": staged / self.folder / name for name in names})
        for result in self.check(staged):
            if not result.checksum_ok:
                raise FormatError(f"{self.archive} is not the published archive: {result.message}")


def _batch(name: str, records: int, training: bool, checksum: str, label_classes: tuple[int, ...]) -> PublishedFile:
    """A file of records whose label bytes count up to `label_classes`, one number for each byte."""
    size = len(label_classes) + _PIXELS

    def parse(path: Path, content: bytes) -> files.Bytes:
        if len(content) % size:
            raise FormatError(
                f"{path}: found {len(content):,} bytes, expected a whole number of {size:,}-byte records "
                f"(label bytes: {len(label_classes)}, then 3x32x32 pixels)."
            )
        array = np.frombuffer(content, np.uint8).reshape(-1, size)
        for column, classes in enumerate(label_classes):
            files.check_labels(path, array[:, column], classes)
        return array

    return PublishedFile(name, records, training, "sha1", checksum, parse)


CIFAR10 = Cifar(
    name="cifar10",
    title="CIFAR-10: small photographs, 50,000 + 10,000 images, 3x32x32",
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    names_file="batches.meta.txt",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    label_bytes=1,
    batches=(
        _batch("data_batch_1.bin", 10_000, True, "aadd24acce27caa71bf4b10992e9e7b2d74c2540", (10,)),
        _batch("data_batch_2.bin", 10_000, True, "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795", (10,)),
        _batch("data_batch_3.bin", 10_000, True, "1dd00a74ab1d17a6e7d73e185b69dbf31242f295", (10,)),
        _batch("data_batch_4.bin", 10_000, True, "aab85764eb3584312d3c7f65fd2fd016e36a258e", (10,)),
        _batch("data_batch_5.bin", 10_000, True, "26e2849e66a845b7f1e4614ae70f4889ae604628", (10,)),
        _batch("test_batch.bin", 10_000, False, "67eb016db431130d61cd03c7ad570b013799c88c", (10,)),
    ),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)

CIFAR100 = Cifar(
    name="cifar100",
    title="CIFAR-100: small photographs in 100 classes, 50,000 + 10,000 images, 3x32x32",
    archive="cifar-100-binary.tar.gz",
    folder="cifar-100-binary",
    names_file="fine_label_names.txt",
    classes=tuple(
        """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
        camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
        dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
        leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
        otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
        road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
        sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
        wardrobe whale willow_tree wolf woman worm
        """.split()  # noqa: SIM905 - as a list it would fill a hundred lines
    ),
    label_bytes=2,
    batches=(
        _batch("train.bin", 50_000, True, "e207cd2e05b73b1393c74c7f5e7bea451d63e08e", (20, 100)),
        _batch("test.bin", 10_000, False, "8fb6623e830365ff53cf14adec797474f5478006", (20, 100)),
    ),
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)
