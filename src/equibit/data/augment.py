"""Batch augmentation and normalisation on the device that holds the images.

Whole batches at a time: one gather per batch, no Python loop over images, and every random number from the
one generator that is passed in, so that a run is repeatable.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional

from equibit.errors import InputError, unknown

SHIFT_PIXELS = 2
CROP_PIXELS = 4


def _none(images: Tensor, generator: Generator) -> Tensor:
    return images


def _shift(images: Tensor, generator: Generator) -> Tensor:
    """Uniform translation by -2..2 pixels along each axis, zeros moving in."""
    top, left = _offsets(images, SHIFT_PIXELS, generator)
    return _windows(images, SHIFT_PIXELS, top, left)


def _crop_flip(images: Tensor, generator: Generator) -> Tensor:
    """Uniform crop of the images padded with 4 zeros a side, mirrored with probability one half.

    Source: C.-Y. Lee et al., "Deeply-Supervised Nets", AISTATS 2015, arXiv:1409.5185, as used for CIFAR
    since.
    """
    top, left = _offsets(images, CROP_PIXELS, generator)
    flip = torch.rand(len(images), generator=generator, device=generator.device) < 0.5
    return _windows(images, CROP_PIXELS, top, left, flip.to(images.device))


_KINDS: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "none": _none,
    "shift": _shift,
    "crop_flip": _crop_flip,
}


def kinds() -> list[str]:
    """The kinds of augmentation, sorted."""
    return sorted(_KINDS)


def augment(images: Tensor, kind: str, generator: Generator) -> Tensor:
    """A randomly changed copy of each image.

    Args:
        images: (B, C, H, W), any dtype, any device.
        kind: "none" (returns `images` itself), "shift" (by up to 2 pixels, for digits) or "crop_flip"
            (padded by 4 pixels, cropped, mirrored; for small photographs).
        generator: the only source of random numbers; on the device of the images to avoid a transfer.

    Returns:
        (B, C, H, W), dtype and device of `images`.

    Raises:
        InputError: unknown kind, or `images` is not a batch of images.
    """
    if kind not in _KINDS:
        raise unknown("augmentation", kind, _KINDS)
    _require_batch(images)
    return _KINDS[kind](images, generator)


def _require_batch(images: Tensor) -> None:
    if images.ndim != 4:
        raise InputError(f"images of shape {tuple(images.shape)}: expected (batch, channels, height, width).")


def _offsets(images: Tensor, padding: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Top and left corner of each window in its padded image: int64 (B,) each, of 0..2*padding."""
    size = (2, len(images))
    corners = torch.randint(2 * padding + 1, size, generator=generator, device=generator.device)
    top, left = corners.to(images.device)
    return top, left


def _windows(images: Tensor, padding: int, top: Tensor, left: Tensor, flip: Tensor | None = None) -> Tensor:
    """The (H, W) window at (top, left) of each zero-padded image, mirrored where `flip`; (B, C, H, W)."""
    batch, channels, height, width = images.shape
    padded = functional.pad(images, (padding,) * 4)
    rows = torch.arange(height, device=images.device) + top[:, None]  # (B, H)
    columns = torch.arange(width, device=images.device).expand(batch, width)  # (B, W)
    if flip is not None:
        columns = torch.where(flip[:, None], columns.flip(1), columns)
    columns = columns + left[:, None]
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
