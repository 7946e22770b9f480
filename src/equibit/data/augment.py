"""Batch augmentation and normalisation on the device that holds the images.

Whole batches at a time: one gather per batch, no Python loop over images, and every random number from the
one generator that is passed in, so that a run is repeatable.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

from equibit.errors import InputError, unknown

TENSOR_KINDS = ("none", "shift", "crop_flip")
FILE_KINDS = ("none", "random_resized_crop", "resize_crop")  # while an image is decoded: see `equibit.data.decode`


class _Window(NamedTuple):
    """Which windows of a padded image a kind takes."""

    padding: int  # pixels a side
    mirrors: bool


_WINDOWS = {"shift": _Window(padding=2, mirrors=False), "crop_flip": _Window(padding=4, mirrors=True)}


class Draw(NamedTuple):
    """The random numbers of one batch.

    Attributes:
        top: int64 (B,), first row of each window in its padded image.
        left: int64 (B,), first column.
        flip: bool (B,), whether it is mirrored; None if the kind never mirrors.
    """

    top: Tensor
    left: Tensor
    flip: Tensor | None

    def to(self, device: torch.device) -> "Draw":
        """The same numbers on `device`."""
        return Draw(self.top.to(device), self.left.to(device), None if self.flip is None else self.flip.to(device))


def kinds() -> list[str]:
    """The kinds of augmentation, sorted; which of them fit a data set is in its entry's `augments`."""
    return sorted({*TENSOR_KINDS, *FILE_KINDS})


def require_fit(kind: str, fitting: Iterable[str], images: str) -> None:
    """Raise an InputError that lists the `fitting` kinds unless `kind` is one of them."""
    if kind not in kinds():
        raise unknown("augmentation", kind, kinds())
    if kind not in fitting:
        raise InputError(f"augmentation {kind!r} does not fit {images}; these do: {', '.join(fitting)}.")


def augment(images: Tensor, kind: str, generator: Generator) -> Tensor:
    """A randomly changed copy of each image: `apply` of a fresh `draw`.

    Args:
        images: (B, C, H, W), any dtype, any device.
        kind: "none" (returns `images` itself), "shift" (uniformly by -2..2 pixels along each axis, zeros moving in;
            for digits) or "crop_flip" (padded with 4 zeros a side, cropped uniformly, mirrored with probability one
            half; for small photographs). Source of the last: C.-Y. Lee et al., "Deeply-Supervised Nets", AISTATS 2015,
            arXiv:1409.5185, as used for CIFAR since.
        generator: the only source of random numbers; on the device of the images to avoid a transfer.

    Returns:
        (B, C, H, W), dtype and device of `images`.

    Raises:
        InputError: the kind is unknown or not for images in memory, or `images` is not a batch of images.
    """
    return apply(images, kind, draw(kind, len(images), generator))


def draw(kind: str, count: int, generator: Generator) -> Draw | None:
    """The random numbers that `apply` needs for `count` images, on the generator's device; None for "none".

    Raises:
        InputError: the kind is unknown or not for images in memory.
    """
    require_fit(kind, TENSOR_KINDS, "images in memory")
    if kind == "none":
        return None
    window, device = _WINDOWS[kind], generator.device
    top, left = torch.randint(2 * window.padding + 1, (2, count), generator=generator, device=device)
    flip = torch.rand(count, generator=generator, device=device) < 0.5 if window.mirrors else None
    return Draw(top, left, flip)


def apply(images: Tensor, kind: str, drawn: Draw | None) -> Tensor:
    """The images changed as drawn: a pure function that torch.compile takes as one graph, `normalize` included.

    Args:
        images: (B, C, H, W), any dtype, any device.
        kind: as for `augment`.
        drawn: what `draw` gave for this kind and as many images.

    Raises:
        InputError: `images` is not a batch of images.
    """
    _require_batch(images)
    if drawn is None:
        return images
    return _windows(images, _WINDOWS[kind].padding, drawn.to(images.device))


def _require_batch(images: Tensor) -> None:
    if images.ndim != 4:
        raise InputError(f"images of shape {tuple(images.shape)}: expected (batch, channels, height, width).")


def _windows(images: Tensor, padding: int, drawn: Draw) -> Tensor:
    """The drawn (H, W) window of each zero-padded image; (B, C, H, W)."""
    batch, channels, height, width = images.shape
    padded = functional.pad(images, (padding,) * 4)
    rows = torch.arange(height, device=images.device) + drawn.top[:, None]  # (B, H)
    columns = torch.arange(width, device=images.device).expand(batch, width)  # (B, W)
    if drawn.flip is not None:
        columns = torch.where(drawn.flip[:, None], columns.flip(1), columns)
    columns = columns + drawn.left[:, None]
    index = rows[:, :, None] * padded.shape[3] + columns[:, None, :]  # (B, H, W) into a flat padded image
    index = index.view(batch, 1, height * width).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view(images.shape)


def normalize(images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> Tensor:
    """(pixel / 255 - mean) / std per channel.

    Args:
        images: uint8 (B, C, H, W).
        mean: C values, of pixels in [0, 1]; a tensor on the device of the images avoids a transfer per batch.
        std: C values, likewise.

    Returns:
        float32 (B, C, H, W).

    Raises:
        InputError: not uint8 (a second normalisation would pass unnoticed), or another number of channels.
    """
    _require_batch(images)
    if images.dtype != torch.uint8:
        raise InputError(f"images of dtype {images.dtype}: expected torch.uint8 pixels of 0..255.")
    return (images.float() / 255 - _per_channel(mean, images)) / _per_channel(std, images)


def _per_channel(values: Sequence[float] | Tensor, images: Tensor) -> Tensor:
    tensor = torch.as_tensor(values, dtype=torch.float32, device=images.device)
    if tensor.shape != images.shape[1:2]:
        raise InputError(f"{tensor.numel()} values of mean or std for images of {images.shape[1]} channels.")
    return tensor[:, None, None]
