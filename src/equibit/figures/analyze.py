"""What a run's bits did: accuracy, flips and entropy through training, and the share of +1 in every layer."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from equibit.errors import FileError

# Okabe and Ito's colours, distinct for the colour-blind and in grey.
_BLUE, _ORANGE, _GREY = "#0072B2", "#E69F00", "#7F7F7F"
_STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "equibit"}


def draw(found: Mapping[str, Any], folder: Path, title: str) -> Path:
    """Draws analyze.png and analyze.svg, and writes analyze.csv (epochs) and analyze.layers.csv.

    Args:
        found: `layers` and `epochs`, as `equibit analyze --json` prints them.
        folder: Where to; created.
        title: Above the picture.

    Returns:
        Path of the PNG.

    Raises:
        FileError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_rows(folder / "analyze.csv", found["epochs"])
        _write_rows(folder / "analyze.layers.csv", found["layers"])
        with matplotlib.rc_context(_STYLE):
            figure = _figure(found["layers"], found["epochs"], title)
            figure.savefig(folder / "analyze.png", dpi=150)
            figure.savefig(folder / "analyze.svg", metadata={"Date": None})
    except OSError as error:
        raise FileError(f"cannot write into {folder}: {error.strerror or error}.") from error
    return folder / "analyze.png"


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def _figure(layers: Sequence[Mapping[str, Any]], epochs: Sequence[Mapping[str, Any]], title: str) -> Figure:
    height = 3.6 if not layers else max(3.6, 1.4 + 0.2 * len(layers))
    figure = Figure(figsize=(11 if layers else 5, height), layout="constrained")
    axes = figure.subplots(1, 3 if layers else 1, squeeze=False)[0]
    _accuracy(axes[0], epochs)
    if layers:
        _bits(axes[1], epochs)
        _ratios(axes[2], layers)
    figure.suptitle(title, fontsize=11)
    return figure


def _accuracy(axis: Axes, epochs: Sequence[Mapping[str, Any]]) -> None:
    numbers = [row["epoch"] for row in epochs]
    axis.plot(numbers, [100 * row["train_accuracy"] for row in epochs], color=_GREY, ls="--", label="training")
    axis.plot(numbers, [100 * row["test_accuracy"] for row in epochs], color=_BLUE, marker=".", label="test")
    axis.set(ylabel="accuracy (%)")
    _number_epochs(axis)
    axis.legend(frameon=False)


def _number_epochs(axis: Axes) -> None:
    axis.set(xlabel="epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _bits(axis: Axes, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Flips on a logarithmic axis at the left, entropy at the right."""
    numbers = [row["epoch"] for row in epochs]
    flips = [100 * row["flip_rate"] for row in epochs]
    axis.plot(numbers, flips, color=_ORANGE, marker=".", label="flips")
    axis.set(ylabel="weights flipped since the epoch before (%)")
    _number_epochs(axis)
    if min(flips) > 0:
        axis.set_yscale("log")
    right = axis.twinx()
    right.plot(numbers, [row["bit_entropy"] for row in epochs], color=_BLUE, marker=".", ls="--", label="entropy")
    right.set(ylabel="entropy of a filter (bits)", ylim=(0, 1.05))
    right.spines["right"].set_visible(True)
    axis.legend(handles=[*axis.lines, *right.lines], frameon=False, loc="lower left")


def _ratios(axis: Axes, layers: Sequence[Mapping[str, Any]]) -> None:
    """Mean share of +1 of each layer's filters, and their range."""
    rows = range(len(layers))
    axis.hlines(
        rows,
        [100 * layer["ratio_min"] for layer in layers],
        [100 * layer["ratio_max"] for layer in layers],
        color=_ORANGE,
        lw=3,
        label="lowest to highest filter",
    )
    axis.plot([100 * layer["ratio_mean"] for layer in layers], rows, "o", color=_BLUE, ms=4, label="mean")
    axis.axvline(50, color=_GREY, lw=0.8, ls=":")
    axis.set(
        xlabel="share of +1 (%)", xlim=(0, 100), yticks=list(rows), yticklabels=[layer["name"] for layer in layers]
    )
    axis.invert_yaxis()
    axis.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
