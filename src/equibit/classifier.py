"""Image classification with an exported file and nothing else: its metadata says how pixels become inputs. No torch."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from equibit.errors import FileError, FormatError
from equibit.runtime import InferenceSession

Array = NDArray[Any]
_BATCH = 256


class Classifier:
    """An exported image classifier.

    Args:
        path: File written by `equibit.export_onnx` with metadata `mean`, `std`, `classes`.
        threads: Threads of one run.

    Attributes:
        session: The onnxruntime session.
        metadata: The file's metadata without the prefix `equibit.`, JSON lists decoded.
        in_shape: (channels, height, width) of an input.

    Raises:
        FileError: No file at `path`.
        FormatError: The file is no image classifier of ours; the message says what is missing.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1) -> None:
        self.path = Path(path)
        self.session = InferenceSession(path, threads=threads)
        self.metadata = _decode(self.session.get_modelmeta().custom_metadata_map, self.path)
        inputs = self.session.get_inputs()
        shape = tuple(inputs[0].shape)[1:]
        if len(inputs) != 1 or len(shape) != 3 or not all(isinstance(side, int) for side in shape):
            raise FormatError(f"{path} takes {[i.shape for i in inputs]}; a classifier takes one image batch.")
        self.in_shape = (int(shape[0]), int(shape[1]), int(shape[2]))
        missing = [key for key in ("mean", "std") if key not in self.metadata]
        if missing:
            raise FormatError(
                f"{path} does not say how pixels become inputs: no metadata {', '.join(missing)}. "
                "Export it with metadata={'mean': [...], 'std': [...], 'classes': [...]}."
            )

    @property
    def classes(self) -> list[str]:
        """Names of the classes; numbers where the file names none."""
        named = self.metadata.get("classes")
        return [str(c) for c in named] if named else [str(i) for i in range(self.session.get_outputs()[0].shape[-1])]

    def logits(self, images: Array) -> Array:
        """Outputs (n, classes) for uint8 images (n, channels, height, width)."""
        mean, std = (np.asarray(self.metadata[k], np.float32).reshape(1, -1, 1, 1) for k in ("mean", "std"))
        name = self.session.get_inputs()[0].name
        outputs = []
        for start in range(0, len(images), _BATCH):
            pixels = images[start : start + _BATCH].astype(np.float32) / np.float32(255)
            outputs.append(self.session.run(None, {name: (pixels - mean) / std})[0])
        return np.concatenate(outputs)

    def read_image(self, path: str | os.PathLike[str]) -> Array:
        """An image file as uint8 (channels, height, width), resized to the network's input.

        Raises:
            FileError: No such file.
            FormatError: The file is no image.
        """
        channels, height, width = self.in_shape
        try:
            with Image.open(path) as image:
                resized = image.convert("L" if channels == 1 else "RGB").resize(
                    (width, height), Image.Resampling.BILINEAR
                )
        except FileNotFoundError:
            raise FileError(f"no image at {path}.") from None
        except (UnidentifiedImageError, OSError) as error:
            raise FormatError(f"{path} is no image that can be read: {error}.") from None
        pixels = np.asarray(resized, np.uint8)
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def probabilities(logits: Array) -> Array:
    """Softmax over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def cross_entropy(logits: Array, labels: Array) -> float:
    """Mean of -log softmax(logits)[label]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=-1))
    return float((log_sum - shifted[np.arange(len(labels)), labels]).mean())


def _decode(properties: dict[str, str], path: Path) -> dict[str, Any]:
    ours = {k.removeprefix("equibit."): v for k, v in properties.items() if k.startswith("equibit.")}
    if ours.get("format") != "1":
        raise FormatError(f"{path} was not written by equibit (metadata equibit.format is {ours.get('format')!r}).")
    try:
        return {k: json.loads(v) if k in ("classes", "mean", "std") else v for k, v in ours.items()}
    except ValueError as error:
        raise FormatError(f"{path}: damaged metadata: {error}.") from None
