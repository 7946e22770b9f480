"""What the page tells, measured now from a run and the test set."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from equibit import analysis
from equibit.analysis import LayerBits, Summary
from equibit.bench.measure import Report
from equibit.data import Dataset
from equibit.layers import binary_layers
from equibit.report.confusion import Pair, Predictions, most_confused, predict
from equibit.training import Run

_PAIRS, _EXAMPLES = 6, 6


@dataclass(frozen=True, eq=False)
class Filters:
    """Binary weights of a convolution, int8 (filters, channels, height, width)."""

    layer: str
    weights: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Facts:
    """Everything on the page.

    Attributes:
        run: The run.
        which: Whose weights these are: final or best.
        dataset: Its data set.
        predictions: On the whole test set.
        pairs: The most frequent errors.
        layers: Every binary layer.
        filters: Of the first binary convolution; None where there is none.
        size: Of the network.
        onnx_bytes: Of the exported file.
        speed: Of the exported file; None if it was not asked for.
    """

    run: Run
    which: str
    dataset: Dataset
    predictions: Predictions
    pairs: tuple[Pair, ...]
    layers: tuple[LayerBits, ...]
    filters: Filters | None
    size: Summary
    onnx_bytes: int
    speed: Report | None


def gather(run: Run, which: str, dataset: Dataset, onnx_bytes: int, speed: Report | None) -> Facts:
    """Scores a run on the whole test set and describes its layers.

    Args:
        run: The run, its network in eval mode.
        which: Whose weights it was loaded with: final or best.
        dataset: The data set of its recipe.
        onnx_bytes: Size of the exported file.
        speed: What `bench` measured of that file, if it did.
    """
    pixels = run.recipe.data
    assert pixels.mean is not None  # a run's config is complete
    assert pixels.std is not None
    predictions = predict(run.model, dataset.test, pixels.mean, pixels.std)
    return Facts(
        run=run,
        which=which,
        dataset=dataset,
        predictions=predictions,
        # With images left out, positions in the predictions are not those in the split.
        pairs=most_confused(predictions, _PAIRS, 0 if dataset.test.skipped else _EXAMPLES),
        layers=analysis.layer_bits(run.model),
        filters=_first_filters(run.model),
        size=analysis.summary(run.model, (1, *dataset.in_shape)),
        onnx_bytes=onnx_bytes,
        speed=speed,
    )


def _first_filters(model: nn.Module) -> Filters | None:
    for layer in binary_layers(model):
        if layer.latent.dim() == 4:
            return Filters(layer.name, layer.binary().detach().to(torch.int8).numpy())
    return None
