"""Which classes a network takes for which, and the images it is surest about where it is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from equibit import data
from equibit.data import Split

_BATCH = 256  # images in memory at a time


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of every image of a split, in its order.

    Attributes:
        labels: int64 (N,).
        predicted: int64 (N,).
        confidence: float32 (N,), the probability of the predicted class.
        loss: Mean cross-entropy.
        classes: Number of classes.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    loss: float
    classes: int

    @property
    def accuracy(self) -> float:
        """Share of the images whose class is predicted."""
        return float(np.mean(self.labels == self.predicted))

    @property
    def matrix(self) -> NDArray[np.int64]:
        """Images by class (rows) and prediction (columns)."""
        pairs = self.classes * self.labels + self.predicted
        return np.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes)


@dataclass(frozen=True)
class Pair:
    """A class that is taken for another one.

    Attributes:
        true: The class; `predicted` is what it was taken for.
        count: How often.
        examples: The images, those first of whose wrong class the network is surest.
    """

    true: int
    predicted: int
    count: int
    examples: tuple[int, ...]


@torch.no_grad()
def predict(model: nn.Module, split: Split, mean: Sequence[float], std: Sequence[float]) -> Predictions:
    """Runs a network in eval mode over a whole split."""
    parts: list[tuple[Tensor, ...]] = []
    classes = 0
    for images, labels in split.batches(data.sequential(len(split), _BATCH)):
        logits = model(data.normalize(images, mean, std)).float()  # (b, classes)
        losses = cross_entropy(logits.double(), labels, reduction="none")
        classes = logits.shape[1]
        parts.append((labels, *logits.softmax(dim=1).max(dim=1), losses))
    true, confidence, predicted, losses = (torch.cat(column) for column in zip(*parts, strict=True))
    return Predictions(true.numpy(), predicted.numpy(), confidence.numpy(), float(losses.mean()), classes)


def most_confused(predictions: Predictions, pairs: int, examples: int) -> tuple[Pair, ...]:
    """The most frequent errors, at most `pairs`, with at most `examples` images each; equal counts in class order."""
    wrong = predictions.matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong.ravel(), kind="stable")[:pairs]
    found = ((int(i) // predictions.classes, int(i) % predictions.classes) for i in order)
    return tuple(_pair(predictions, true, taken, examples) for true, taken in found if wrong[true, taken])


def _pair(predictions: Predictions, true: int, taken: int, examples: int) -> Pair:
    (images,) = np.nonzero((predictions.labels == true) & (predictions.predicted == taken))
    surest = images[np.argsort(-predictions.confidence[images], kind="stable")]
    return Pair(true, taken, len(images), tuple(map(int, surest[:examples])))
