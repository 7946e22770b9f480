"""The charts of the page."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from equibit.analysis import LayerBits
from equibit.figures import latents as laws
from equibit.figures.style import BLUE, ORANGE, VERMILION
from equibit.report.inline import FAINT, INK, STYLE, svg

Rows = Sequence[Mapping[str, Any]]
_MANY = 20  # classes from which a confusion matrix has no numbers
_LATENTS = 6  # layers whose latents are drawn


@dataclass(frozen=True)
class Chart:
    """An `<svg>` element with its caption."""

    title: str
    about: str
    svg: str


def _chart(name: str, title: str, about: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> Chart:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        return Chart(title, about, svg(figure, f"equibit-{name}", f"{title}. {about}"))


def training(epochs: Rows) -> list[Chart]:
    """Loss, accuracy and learning rate through training."""
    best = max(epochs, key=lambda row: row["test_accuracy"])
    return [
        _chart("loss", "Loss", "Cross-entropy, mean over the images.", (3.8, 2.6), lambda f: _loss(f, epochs)),
        _chart(
            "accuracy",
            "Accuracy",
            f"The best epoch on the test set is number {best['epoch']}.",
            (3.8, 2.6),
            lambda f: _accuracy(f, epochs, best),
        ),
        _chart("lr", "Learning rate", "At the start of each epoch.", (3.8, 2.6), lambda f: _lr(f, epochs)),
    ]


def _loss(figure: Figure, epochs: Rows) -> None:
    axis = _epoch_axis(figure, epochs, "cross-entropy")
    _both(axis, epochs, "loss", 1)
    _spread_out(axis, [row[key] for row in epochs for key in ("train_loss", "test_loss")])
    axis.legend()


def _accuracy(figure: Figure, epochs: Rows, best: Mapping[str, Any]) -> None:
    axis = _epoch_axis(figure, epochs, "accuracy (%)")
    _both(axis, epochs, "accuracy", 100)
    axis.plot(best["epoch"], 100 * best["test_accuracy"], "o", mfc="none", mew=1.4, ms=9, color=VERMILION, label="best")
    axis.legend(loc="lower right")


def _both(axis: Axes, epochs: Rows, key: str, factor: float) -> None:
    numbers = [row["epoch"] for row in epochs]
    axis.plot(numbers, [factor * row[f"train_{key}"] for row in epochs], "--", color=ORANGE, label="training")
    axis.plot(numbers, [factor * row[f"test_{key}"] for row in epochs], "o-", color=BLUE, ms=3, label="test")


def _lr(figure: Figure, epochs: Rows) -> None:
    axis = _epoch_axis(figure, epochs, "learning rate")
    axis.plot([row["epoch"] for row in epochs], [row["lr"] for row in epochs], "o-", color=BLUE, ms=3)
    axis.set_ylim(bottom=0)


def _epoch_axis(figure: Figure, epochs: Rows, label: str) -> Axes:
    axis = figure.subplots()
    axis.set(xlabel="epoch", ylabel=label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y")
    if len(epochs) == 1:
        axis.set_xlim(0, 2)
    return axis


def _spread_out(axis: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis for values of more than one order of magnitude, from 0 for others."""
    if 0 < 10 * min(values) < max(values):
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 1000 * min(values) else (1,)))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        axis.set_ylim(bottom=0)


def bits(layers: Sequence[LayerBits], epochs: Rows, recorded: Rows) -> list[Chart]:
    """Share of +1 of every layer, flips and entropy through training; nothing for a float network.

    Args:
        layers: The binary layers.
        epochs: The rows of metrics.jsonl.
        recorded: The lines of layers.jsonl; empty for a run without.
    """
    if not layers:
        return []
    height = max(2.6, 1.1 + 0.25 * len(layers))
    charts = [
        _chart(
            "ratios",
            "Share of +1",
            "Of the filters of each layer: mean, and lowest to highest.",
            (3.8, height),
            lambda f: _ratios(f, layers),
        ),
        _chart(
            "flips",
            "Flips",
            "Weights that changed since the epoch before" + ("; the thin lines are layers." if recorded else "."),
            (3.8, 2.6),
            lambda f: _flips(f, epochs, recorded),
        ),
    ]
    about = "Of a filter's bits, mean over all filters" + (
        "; of the signs of a channel, mean over channels and layers." if recorded else "."
    )
    return [*charts, _chart("entropy", "Entropy", about, (3.8, 2.6), lambda f: _entropy(f, epochs, recorded))]


def _ratios(figure: Figure, layers: Sequence[LayerBits]) -> None:
    axis, rows = figure.subplots(), range(len(layers))
    low, high = ([100 * getattr(layer, key) for layer in layers] for key in ("ratio_min", "ratio_max"))
    axis.axvline(50, color=FAINT, lw=0.8, ls=":")
    axis.hlines(rows, low, high, color=ORANGE, lw=5, alpha=0.7, label="lowest to highest filter")
    axis.plot([100 * layer.ratio_mean for layer in layers], rows, "o", color=BLUE, ms=5, label="mean")
    axis.set(xlabel="share of +1 (%)", xlim=(0, 100), yticks=list(rows), ylim=(len(layers) - 0.4, -0.6))
    axis.set_yticklabels([layer.name for layer in layers])
    axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _flips(figure: Figure, epochs: Rows, recorded: Rows) -> None:
    axis = _epoch_axis(figure, epochs, "weights flipped (%)")
    for name in dict.fromkeys(name for row in recorded for name in row["layers"]):
        values = _of_layer(recorded, name, "flip_rate")
        axis.plot([e for e, _ in values], [100 * v for _, v in values], color=INK, lw=0.7, alpha=0.35)
    rates = [100 * row["flip_rate"] for row in epochs]
    axis.plot([row["epoch"] for row in epochs], rates, "o-", color=BLUE, ms=3)
    _spread_out(axis, rates)


def _of_layer(recorded: Rows, name: str, key: str) -> list[tuple[int, float]]:
    found = ((row["epoch"], row["layers"].get(name, {}).get(key)) for row in recorded)
    return [(epoch, value) for epoch, value in found if value is not None]


def _entropy(figure: Figure, epochs: Rows, recorded: Rows) -> None:
    axis = _epoch_axis(figure, epochs, "bits")
    numbers, entropies = [row["epoch"] for row in epochs], [row["bit_entropy"] for row in epochs]
    axis.plot(numbers, entropies, "o-", color=BLUE, ms=3, label="weights")
    means = []
    for row in recorded:
        values = [layer.get("activation_entropy") for layer in row["layers"].values()]
        known = [value for value in values if value is not None]
        means += [(row["epoch"], math.fsum(known) / len(known))] if known else []
    if means:
        axis.plot(*zip(*means, strict=True), "s--", color=ORANGE, ms=3, label="signs of the layers' inputs")
        axis.legend(loc="lower right")
    axis.set_ylim(0, 1.05)


def latents(layers: Sequence[LayerBits]) -> Chart | None:
    """Histograms of the latent weights of some layers, with both fitted laws; None for a float network."""
    if not layers:
        return None
    chosen = [layers[i] for i in np.unique(np.linspace(0, len(layers) - 1, _LATENTS).round().astype(int))]
    columns = min(3, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    about = (
        "In standard deviations from the mean, with the Laplace and the Gaussian law that fit best; the better one is "
        "solid. p* is the share of +1 that SiMaN's measure would choose: 0.368 for Laplace, 0.541 for Gauss."
    )
    return _chart(
        "latents",
        "Latent weights",
        about,
        (3.1 * columns, 0.5 + 2.3 * rows),
        lambda f: _latents(f, chosen, rows, columns),
    )


def _latents(figure: Figure, layers: Sequence[LayerBits], rows: int, columns: int) -> None:
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for axis in grid[len(layers) :]:
        axis.remove()
    for axis, layer in zip(grid, layers, strict=False):
        laws.draw(axis, layer.to_dict())
        axis.set_title(f"{layer.name}: p* = {layer.p_star:.3f}", fontsize=9)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=3, loc="outside upper center")


def confusion(matrix: NDArray[np.int64], classes: Sequence[str]) -> Chart:
    """The confusion matrix: correct ones on the diagonal, errors coloured by how many of their class they are."""
    few = len(classes) <= _MANY
    side = 1.6 + 0.36 * len(classes) if few else 6.5
    colours = "relative to the largest error" if few else "brighter for more errors"
    about = f"Rows are the true classes, columns the predicted ones; colours are {colours}."
    draw = _numbers if few else _shades
    return _chart(
        "confusion", "Confusion matrix", about, (side, side * 0.92), lambda f: draw(f.subplots(), matrix, classes)
    )


def _numbers(axis: Axes, matrix: NDArray[np.int64], classes: Sequence[str]) -> None:
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    highest = max(int(errors.max()), 1)
    for (row, column), count in np.ndenumerate(matrix):
        if row == column:
            axis.add_patch(_square(row, column, BLUE, 0.25))
        elif count:
            axis.add_patch(_square(row, column, VERMILION, 0.1 + 0.65 * count / highest))
        weight = "bold" if row == column else "normal"
        text = str(count) if count else "·"
        axis.text(column, row, text, ha="center", va="center", fontsize=9, weight=weight, alpha=1 if count else 0.35)
    _classes(axis, classes)


def _square(row: int, column: int, colour: str, alpha: float) -> Any:
    return matplotlib.patches.Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=colour, alpha=alpha, lw=0)


def _shades(axis: Axes, matrix: NDArray[np.int64], classes: Sequence[str]) -> None:
    errors = matrix.astype(float)
    np.fill_diagonal(errors, np.nan)
    axis.imshow(np.sqrt(errors), cmap="inferno", interpolation="nearest")
    axis.set(xlabel="predicted", ylabel="true")


def _classes(axis: Axes, classes: Sequence[str]) -> None:
    ticks = list(range(len(classes)))
    turned = 45 if max(map(len, classes)) > 2 else 0
    axis.set(xlim=(-0.5, len(classes) - 0.5), ylim=(len(classes) - 0.5, -0.5), xticks=ticks, yticks=ticks)
    axis.set_xticklabels(list(classes), rotation=turned, ha="right" if turned else "center")
    axis.set_yticklabels(list(classes))
    axis.set(xlabel="predicted", ylabel="true", aspect="equal")
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
