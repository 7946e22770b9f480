"""The image shape a network is made for, and the stem that fits it."""

from collections.abc import Sequence

from equibit.errors import InputError

Shape = tuple[int, int, int]
STEMS = ("auto", "cifar", "imagenet")
CIFAR_BELOW = 96  # pixels: smaller images get the stem that keeps their size


def image_shape(in_shape: Sequence[int]) -> Shape:
    """`in_shape` as (channels, height, width); an InputError unless it is three positive integers."""
    sizes = tuple(in_shape) if isinstance(in_shape, Sequence) else ()
    if len(sizes) != 3 or not all(type(size) is int and size > 0 for size in sizes):
        raise InputError(f"in_shape={in_shape!r}: expected three positive integers, (channels, height, width).")
    channels, height, width = sizes
    return (channels, height, width)


def resolve_stem(stem: str, in_shape: Shape) -> str:
    """The stem, "cifar" or "imagenet"; "auto" is the first for images below 96 pixels."""
    if stem != "auto":
        return stem
    return "cifar" if min(in_shape[1:]) < CIFAR_BELOW else "imagenet"


def require_size(model: str, in_shape: Shape, minimum: int) -> None:
    """Raise an InputError if an image is lower or narrower than `minimum` pixels."""
    _, height, width = in_shape
    if min(height, width) < minimum:
        raise InputError(f"{model} takes images of at least {minimum}x{minimum} pixels, not {height}x{width}.")
