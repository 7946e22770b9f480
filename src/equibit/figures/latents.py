"""The latent weights of a layer as a histogram, with the Laplace and the Gaussian law that fit them best."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from equibit.figures.style import BLUE, GREY, VERMILION

REACH = 4.0  # standard deviations of the layer, at which the recorded histograms end


def edges(layer: Mapping[str, Any]) -> NDArray[np.float64]:
    """Of the bins, in standard deviations from the mean."""
    return np.linspace(-REACH, REACH, len(layer["latent_histogram"]) + 1)


def density(layer: Mapping[str, Any]) -> NDArray[np.float64]:
    """Share of all weights of the layer in each bin, divided by its width in standard deviations."""
    counts = np.asarray(layer["latent_histogram"], dtype=np.float64)
    shares: NDArray[np.float64] = counts / (layer["weights"] * np.diff(edges(layer)))
    return shares


def fits(layer: Mapping[str, Any], x: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Densities of both laws at x standard deviations from the mean; none where all weights are equal.

    The scale of the Laplace law follows from its mean log likelihood, -1 - ln(2 b).
    """
    deviation = layer["latent_std"]
    if not deviation:
        return {}
    scale = math.exp(-1 - layer["laplace_fit"]) / 2 / deviation
    location = (layer["latent_median"] - layer["latent_mean"]) / deviation
    return {
        "Laplace": np.exp(-np.abs(x - location) / scale) / (2 * scale),
        "Gauss": np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi),
    }


def draw(axis: Axes, layer: Mapping[str, Any]) -> None:
    """The histogram and both laws, the better one as a solid line."""
    axis.stairs(density(layer), edges(layer), fill=True, color=GREY, alpha=0.45, label="latent weights")
    x = np.linspace(-REACH, REACH, 321)
    for law, values in fits(layer, x).items():
        better = law == ("Gauss" if layer["gauss_fit"] > layer["laplace_fit"] else "Laplace")
        axis.plot(x, values, color=BLUE if law == "Gauss" else VERMILION, ls="-" if better else "--", label=law)
    axis.set(xlim=(-REACH, REACH), ylim=(0, None), yticks=[])
    axis.spines["left"].set_visible(False)
