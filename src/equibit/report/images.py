"""Pictures as PNG data URIs: test images, and bits as black and white."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

_SIDE = 96  # pixels; larger test images are made smaller
_BITS = 16  # filters and channels shown of a layer
_PIXEL = 4  # side of a weight


def data_uri(image: Image.Image) -> str:
    """The image as PNG in a URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def photograph(image: Tensor) -> str:
    """A test image.

    Args:
        image: uint8 (channels, height, width) with one channel or three.
    """
    pixels = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture.thumbnail((_SIDE, _SIDE))
    return data_uri(picture)


def mosaic(weights: NDArray[np.int8]) -> str:
    """The first filters downwards, their first input channels side by side: +1 white, -1 black, pruned and gaps grey.

    Args:
        weights: -1, 0 or +1, (filters, channels, height, width).
    """
    shown = weights[:_BITS, :_BITS]
    filters, channels, height, width = shown.shape
    tiles = np.zeros((filters, height + 1, channels, width + 1), np.int16)
    tiles[:, :height, :, :width] = shown.transpose(0, 2, 1, 3)
    rows = tiles.reshape(filters * (height + 1), channels * (width + 1))[:-1, :-1]
    grey = ((rows + 1) * 127.5).astype(np.uint8)
    return data_uri(Image.fromarray(grey.repeat(_PIXEL, axis=0).repeat(_PIXEL, axis=1)))


def shown(weights: NDArray[np.int8]) -> tuple[int, int]:
    """How many filters and channels `mosaic` shows."""
    return min(_BITS, weights.shape[0]), min(_BITS, weights.shape[1])
