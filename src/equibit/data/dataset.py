"""What a loaded data set is: images and labels as tensors, plus what a network needs to know about them."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Dataset:
    """An image-classification data set, whole, in memory.

    Attributes:
        name: the registry name, for example "mnist".
        train_images: uint8 (N, C, H, W), 0..255.
        train_labels: int64 (N,), 0..len(classes)-1.
        test_images: uint8 (M, C, H, W).
        test_labels: int64 (M,).
        classes: one name per label.
        mean: per channel, of training pixels scaled to [0, 1].
        std: per channel, of training pixels scaled to [0, 1].
    """

    name: str
    train_images: Tensor = field(repr=False)
    train_labels: Tensor = field(repr=False)
    test_images: Tensor = field(repr=False)
    test_labels: Tensor = field(repr=False)
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """Shape of one image: (channels, height, width)."""
        channels, height, width = self.train_images.shape[1:]
        return (channels, height, width)


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
