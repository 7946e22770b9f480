"""What a loaded data set is: two halves that give batches, plus what a network needs to know about them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from equibit.data.augment import Draw, apply, draw
from equibit.errors import InputError

_ORDER_SEED = 0  # another number would change what `data.train_images` means


class Split(Protocol):
    """One half of a data set: images that may lie in memory or in files, in a fixed order."""

    @property
    def labels(self) -> Tensor:
        """int64 (N,), on the CPU; 0..classes-1."""

    @property
    def skipped(self) -> list[str]:
        """The files left out so far because they could not be read, each once; of no other images."""

    def __len__(self) -> int:
        """The number of images, N."""

    def to(self, device: torch.device | str) -> Self:
        """The same images, whose batches are given on `device`."""

    def subset(self, index: Tensor) -> Self:
        """The images that int64 `index` names, on the CPU, in its order."""

    def batches(
        self, indices: Sequence[Tensor], *, augment: str = "none", seed: int = 0, part: slice = slice(None)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The images and labels that each index tensor names, one batch at a time.

        Args:
            indices: int64 (B,) each, of 0..N-1.
            augment: a kind of `equibit.data.kinds()` that fits these images; "none" for evaluation.
            seed: of the augmentation; one seed gives the same batches however often it is used.
            part: the rows of every batch that are wanted, the same as they are in the whole batch.

        Yields:
            uint8 images (B, C, H, W) and int64 labels (B,), both on the device. Where files are skipped a batch
            is smaller, and left out if nothing of it remains.

        Raises:
            InputError: `augment` is unknown or does not fit these images.
            FormatError: an image cannot be read and is not to be skipped.
        """


class TensorSplit:
    """A split that is whole in memory, as tensors on one device.

    Args:
        images: uint8 (N, C, H, W), 0..255.
        labels: int64 (N,).

    Raises:
        InputError: there are not as many labels as images.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        if len(images) != len(labels):
            raise InputError(f"{len(images)} images with {len(labels)} labels; every image needs one label.")
        self.images = images
        self.labels = labels.cpu()
        self.skipped: list[str] = []
        self._targets = labels.to(images.device)
        self._gather = _gather

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def to(self, device: torch.device | str) -> Self:
        """The same images, moved once; see `Split.to`."""
        return type(self)(self.images.to(device), self.labels)

    def subset(self, index: Tensor) -> Self:
        """A copy of some of the images; see `Split.subset`."""
        return type(self)(self.images[index.to(self.images.device)], self.labels[index])

    def compiled(self) -> Self:
        """The same images, gathered and augmented by one graph of torch.compile; the same batches."""
        split = type(self)(self.images, self.labels)
        split._gather = torch.compile(_gather)
        return split

    def batches(
        self, indices: Sequence[Tensor], *, augment: str = "none", seed: int = 0, part: slice = slice(None)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Gathered and augmented on the device, all batches from one generator; see `Split.batches`."""
        device = self.images.device
        generator = torch.Generator(device).manual_seed(seed)
        for index in indices:
            index, drawn = index.to(device), draw(augment, len(index), generator)
            yield self._gather(self.images, index, augment, drawn)[part], self._targets[index][part]


def _gather(images: Tensor, index: Tensor, kind: str, drawn: Draw | None) -> Tensor:
    """The indexed images, changed as drawn."""
    return apply(images[index], kind, drawn)


def sequential(count: int, batch_size: int) -> list[Tensor]:
    """The indices 0..count-1 in order, cut into batches; the last one may be smaller."""
    return list(torch.split(torch.arange(count), batch_size))


def spread_order(labels: Tensor) -> Tensor:
    """A fixed random order in which every beginning holds the classes nearly as the whole does; int64 (N,).

    Image r of n of its class, counted in a seeded shuffle, stands at (r + 1/2) / n; equal places as shuffled.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(_ORDER_SEED))
    by_class = labels[shuffled].argsort(stable=True)
    counts = labels.bincount()
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    rank = torch.arange(len(labels), dtype=torch.float64) - starts  # within the class
    place = torch.empty_like(rank)
    place[by_class] = (rank + 0.5) / counts.repeat_interleave(counts)
    return shuffled[place.argsort(stable=True)]


@dataclass(frozen=True, eq=False)
class Dataset:
    """An image-classification data set.

    Attributes:
        name: the registry name, for example "mnist".
        train: the training images and labels.
        test: the test images and labels.
        classes: one name per label.
        mean: per channel, of training pixels scaled to [0, 1].
        std: per channel, of training pixels scaled to [0, 1].
        in_shape: (channels, height, width) of an image.
    """

    name: str
    train: Split = field(repr=False)
    test: Split = field(repr=False)
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    in_shape: tuple[int, int, int]

    def with_train_images(self, count: int) -> "Dataset":
        """With the first `count` training images of `spread_order`; test images, mean and std stay those of the whole.

        A larger count adds images and takes none away; the images keep their order, so all of them change nothing.

        Raises:
            InputError: There are fewer.
        """
        if not 1 <= count <= len(self.train):
            raise InputError(
                f"data.train_images is {count}, but {self.name} has {len(self.train)} training images; give 1 to "
                f"{len(self.train)}, or leave it out for all."
            )
        chosen = spread_order(self.train.labels)[:count].sort().values
        return replace(self, train=self.train.subset(chosen))

    @property
    def train_images(self) -> Tensor:
        """uint8 (N, C, H, W), of a data set in memory."""
        return self._images(self.train)

    @property
    def train_labels(self) -> Tensor:
        """int64 (N,)."""
        return self.train.labels

    @property
    def test_images(self) -> Tensor:
        """uint8 (M, C, H, W), of a data set in memory."""
        return self._images(self.test)

    @property
    def test_labels(self) -> Tensor:
        """int64 (M,)."""
        return self.test.labels

    def _images(self, split: Split) -> Tensor:
        if not isinstance(split, TensorSplit):
            raise InputError(
                f"the images of {self.name} are read in batches and are never all in memory; use `batches`."
            )
        return split.images


@dataclass(frozen=True)
class FileCheck:
    """How one file of a data set compares with the published one.

    Attributes:
        file: the path looked at.
        present: the file is there.
        checksum_ok: its content equals the published file's.
        images: the images (or labels) it holds; None where it holds none or cannot be read.
        message: the finding in one line.
    """

    file: str
    present: bool
    checksum_ok: bool
    images: int | None
    message: str


class DataWarning(UserWarning):
    """A data file is readable but is not the published one, so results on it may differ."""
