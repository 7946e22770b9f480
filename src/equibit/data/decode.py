"""From an image file to a square of pixels: decoding, cropping and resizing with Pillow.

Pixels are taken as they are stored: an EXIF orientation is not applied, as everywhere on ImageNet, where it is wrong
more often than right. Resizing is bilinear over the whole area a pixel covers.
"""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from equibit.errors import FormatError

RESIZES = ("shorter_side", "square")
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp")
_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")  # by content; others would start foreign programs (EPS)
_MARGIN = 256 / 224  # side of the resized image over the side of the crop, as usual on ImageNet
_AREA = (0.08, 1.0)  # share of the image
_ASPECT = (3 / 4, 4 / 3)  # width / height
_TRIES = 10

Box = tuple[int, int, int, int]  # left, upper, right, lower
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Decoder:
    """How every file of a split becomes pixels.

    Attributes:
        size: side of the square that comes out.
        resize: before a crop of fixed size, "shorter_side" makes the shorter side 256/224 of `size`, and "square"
            both sides, whatever the aspect.
    """

    size: int
    resize: str

    def __call__(self, path: Path, kind: str, random: np.random.Generator) -> Pixels:
        """The pixels of one file.

        Args:
            path: the file.
            kind: "random_resized_crop" (see `random_box`; mirrored with probability one half), "resize_crop" (resized,
                cropped uniformly, mirrored likewise) or "none" (resized, centre crop).
            random: the source of random numbers.

        Returns:
            (3, size, size), red, green, blue.

        Raises:
            FormatError: the file is not a whole image; says why.
        """
        image = read(path)
        if kind == "random_resized_crop":
            image = image.crop(random_box(*image.size, random)).resize(
                (self.size, self.size), Image.Resampling.BILINEAR
            )
        else:
            image = self._resized(image)
            places = random.random(2) if kind == "resize_crop" else None
            image = image.crop(_box(*image.size, self.size, places))
        pixels = np.asarray(image).transpose(2, 0, 1)
        mirrored = kind != "none" and random.random() < 0.5
        return np.ascontiguousarray(pixels[:, :, ::-1] if mirrored else pixels)

    def _resized(self, image: Image.Image) -> Image.Image:
        side = round(self.size * _MARGIN)
        width, height = image.size
        if self.resize == "shorter_side":
            shorter = min(width, height)
            target = (side * width // shorter, side * height // shorter)
        else:
            target = (side, side)
        return image.resize(target, Image.Resampling.BILINEAR)


def read(path: Path) -> Image.Image:
    """An image file in RGB, whatever its mode; of 16 bits per channel the higher eight.

    Raises:
        FormatError: it cannot be decoded to its end, or has more pixels than Pillow takes for harmless.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                return _grey_of_16_bits(image) if image.mode.startswith("I") else image.convert("RGB")
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise FormatError(f"{path}: {_reason(error)}; expected a whole image ({', '.join(_FORMATS)}).") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "found no known image format"
    message = getattr(error, "strerror", None) or " ".join(str(error).split())
    return f"cannot be read ({message or type(error).__name__})"


def _grey_of_16_bits(image: Image.Image) -> Image.Image:
    """Pillow would clip at 255 instead of scaling."""
    pixels = np.asarray(image).clip(0, 65535) >> 8
    return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")


def random_box(width: int, height: int, random: np.random.Generator) -> Box:
    """A crop of random area and aspect, for images that are then resized to one size.

    Area: uniform in 8 to 100 % of the image; aspect: log-uniform in 3/4 to 4/3; place: uniform. Where ten draws do not
    fit into the image, the largest centred box within the aspects. Source: C. Szegedy et al., "Going Deeper with
    Convolutions", CVPR 2015, arXiv:1409.4842, section 6; the fallback is that of common practice.
    """
    low, high = (math.log(aspect) for aspect in _ASPECT)
    for _ in range(_TRIES):
        area = width * height * (_AREA[0] + (_AREA[1] - _AREA[0]) * random.random())
        aspect = math.exp(low + (high - low) * random.random())
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(random.integers(width - box_width + 1))
            upper = int(random.integers(height - box_height + 1))
            return (left, upper, left + box_width, upper + box_height)
    return _central_box(width, height)


def _central_box(width: int, height: int) -> Box:
    box_width = min(width, round(height * _ASPECT[1]))
    box_height = min(height, round(width / _ASPECT[0]))
    left, upper = (width - box_width) // 2, (height - box_height) // 2
    return (left, upper, left + box_width, upper + box_height)


def _box(width: int, height: int, size: int, places: npt.NDArray[np.float64] | None) -> Box:
    """A square of `size` at `places` (two of [0, 1): left and upper), or in the centre."""
    if places is None:
        left, upper = round((width - size) / 2), round((height - size) / 2)
    else:
        left, upper = int(places[0] * (width - size + 1)), int(places[1] * (height - size + 1))
    return (left, upper, left + size, upper + size)
