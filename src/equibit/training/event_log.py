"""A run as TensorBoard shows it: `tensorboard --logdir runs`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from equibit.analysis.latents import HISTOGRAM_BINS, HISTOGRAM_REACH
from equibit.errors import FileError

_TAGS = {
    "train_loss": "loss/train",
    "test_loss": "loss/test",
    "train_accuracy": "accuracy/train",
    "test_accuracy": "accuracy/test",
    "relaxed_accuracy": "accuracy/test relaxed",
    "lr": "lr",
    "bit_ratio": "bits/share of +1",
    "bit_entropy": "bits/entropy",
    "flip_rate": "bits/flip rate",
}
_NOT_SHOWN = ("weights", "filters", "latent_histogram")  # the last is shown as a histogram


class EventLog:
    """Event files in a folder; a resumed run adds a file, and TensorBoard drops what it repeats.

    Args:
        folder: Where to; created.
        epoch: Epochs that are finished; the next row may be that of the last of them, which a kill can cut off.

    Raises:
        FileError: A file cannot be written; so `write` and `close`.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        self.folder = folder
        with self._errors():
            self._writer = SummaryWriter(folder, purge_step=epoch or None)

    def write(self, row: Mapping[str, Any], layers: Mapping[str, Mapping[str, Any]]) -> None:
        """One epoch: its row of metrics, and the record of its layers."""
        scalars = {tag: row[key] for key, tag in _TAGS.items() if row.get(key) is not None}
        for name, layer in layers.items():
            scalars |= {f"{k}/{name}": v for k, v in layer.items() if k not in _NOT_SHOWN and v is not None}
        with self._errors():
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, row["epoch"])
            for name, layer in layers.items():
                self._writer.add_histogram_raw(f"latents/{name}", **_histogram(layer), global_step=row["epoch"])
            self._writer.flush()

    def close(self) -> None:
        """Ends the writer's thread."""
        with self._errors():
            self._writer.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise FileError(
                f"cannot write {self.folder}: {reason}. Make room, or go on with --resume --train.tensorboard false."
            ) from error


def _histogram(layer: Mapping[str, Any]) -> dict[str, Any]:
    """The histogram of the latents as TensorBoard takes it."""
    counts = layer["latent_histogram"]
    mean, deviation, number = layer["latent_mean"], layer["latent_std"], sum(counts)
    edges = mean + (deviation or 1.0) * np.linspace(-HISTOGRAM_REACH, HISTOGRAM_REACH, HISTOGRAM_BINS + 1)
    return {
        "min": edges[0],
        "max": edges[-1],
        "num": number,
        "sum": number * mean,
        "sum_squares": number * (deviation**2 + mean**2),
        "bucket_limits": edges[1:].tolist(),
        "bucket_counts": counts,
    }
