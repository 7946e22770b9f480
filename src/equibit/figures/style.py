"""How every picture looks and how it is written: a PNG and an SVG, byte for byte the same when drawn again."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

# Okabe and Ito's colours, distinct for the colour-blind and in grey. Black and a grey for what is only compared with.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#000000", "#7F7F7F"

WIDTH = 7.2  # inches: a printed page between its margins, so that the font sizes below are those on paper
SMALL = 8  # points: the smallest text of a picture
STYLE: Mapping[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 3,  # so that the dashes show
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "equibit",
}


def legend_above(figure: FigureBase, axis: Axes, columns: int | None = None, title: str | None = None) -> None:
    """A legend over all panels, of what one of them holds, in one line or in `columns`; it hides no curve."""
    handles, labels = axis.get_legend_handles_labels()
    place = {"loc": "outside upper center", "ncols": columns or len(labels)}
    figure.legend(handles, labels, title=title, title_fontsize=SMALL, **place)


def save(figure: Figure, stem: Path, dpi: int = 200) -> Path:
    """Writes `stem`.png and `stem`.svg, neither with a date.

    Returns:
        Path of the PNG.
    """
    png = stem.with_name(f"{stem.name}.png")
    figure.savefig(png, dpi=dpi)
    figure.savefig(stem.with_name(f"{stem.name}.svg"), metadata={"Date": None})
    return png


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a CSV with a column for every key; None and absent values are empty."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
