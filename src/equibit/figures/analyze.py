"""What a run's bits did: its accuracy, its layers through training, and their latent weights.

Three pictures, with the numbers beside each: `analyze` (accuracy, flips, entropy, share of +1), `analyze.training`
(every layer, epoch by epoch) and `analyze.latents` (histograms with the laws that fit).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from equibit.errors import FileError
from equibit.figures import latents
from equibit.figures.style import BLUE, GREY, ORANGE, STYLE, VERMILION, WIDTH, save, write_rows

Rows = Sequence[Mapping[str, Any]]

# Of every layer through training, where defined: key, meaning, and whether it is a share that is shown in percent.
_CURVES = (
    ("flip_rate", "flips since the epoch before (%)", True),
    ("never_flipped", "weights that never flipped (%)", True),
    ("bit_entropy", "entropy of a filter (bits)", False),
    ("activation_entropy", "entropy of the inputs' signs (bits)", False),
    ("p_star", "p* of the latents", False),
    ("angle", "angle of latents and bits (degrees)", False),
    ("residual", "residual of the relaxation", False),
)
_LAWS = {"Laplace": 1 / math.e, "Gauss": 0.5405}  # their p*, see `equibit.analysis.p_star`
_NAMED = 8  # layers that a legend names one by one


def draw(found: Mapping[str, Any], folder: Path, title: str) -> list[Path]:
    """Draws a .png and a .svg of each picture there is something for, and writes its numbers.

    Args:
        found: `layers`, `epochs` and `records`, as `equibit analyze --json` prints them.
        folder: Where to; created.
        title: Above the pictures.

    Returns:
        Paths of the PNGs.

    Raises:
        FileError: The folder cannot be written.
    """
    layers, epochs, records = found["layers"], found["epochs"], found["records"]
    pictures: list[tuple[str, Callable[[], Figure], Rows]] = [
        ("analyze", lambda: _overview(layers, epochs), epochs),
    ]
    if any(line["layers"] for line in records):
        pictures.append(("analyze.training", lambda: _training(records), _record_rows(records)))
    if layers:
        pictures.append(("analyze.latents", lambda: _latents(layers), _latent_rows(layers)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(folder / "analyze.layers.csv", [_without_histogram(layer) for layer in layers])
        return [_write(folder / name, drawn, rows, title) for name, drawn, rows in pictures]
    except OSError as error:
        raise FileError(f"cannot write into {folder}: {error.strerror or error}.") from error


def _write(stem: Path, drawn: Callable[[], Figure], rows: Rows, title: str) -> Path:
    write_rows(stem.with_name(f"{stem.name}.csv"), rows)
    with matplotlib.rc_context(dict(STYLE)):
        figure = drawn()
        figure.suptitle(title, fontsize=11)
        return save(figure, stem)


def _without_histogram(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in layer.items() if key != "latent_histogram"}


def _record_rows(records: Rows) -> list[dict[str, Any]]:
    return [
        {"epoch": line["epoch"], "layer": name, **_without_histogram(layer)}
        for line in records
        for name, layer in line["layers"].items()
    ]


def _latent_rows(layers: Rows) -> list[dict[str, Any]]:
    """A row for every bin of every layer, in standard deviations from its mean."""
    rows = []
    for layer in layers:
        edges, values = latents.edges(layer), latents.density(layer)
        middles = (edges[:-1] + edges[1:]) / 2
        laws = {law.lower(): curve for law, curve in latents.fits(layer, middles).items()}
        for i, value in enumerate(values):
            row = {"layer": layer["name"], "from": edges[i], "to": edges[i + 1], "density": value}
            rows.append(row | {law: curve[i] for law, curve in laws.items()})
    return rows


# --- analyze --------------------------------------------------------------------------------------


def _overview(layers: Rows, epochs: Rows) -> Figure:
    sensitive = bool(layers) and "flip_change" in layers[0]
    columns = 1 if not layers else 4 if sensitive else 3
    height = 3.6 if not layers else max(3.6, 1.4 + 0.2 * len(layers))
    figure = Figure(figsize=((5.0, 11.0, 11.0, 14.0)[columns - 1], height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    _accuracy(axes[0], epochs)
    if layers:
        _bits(axes[1], epochs)
        _ratios(axes[2], layers)
    if sensitive:
        _sensitivity(axes[3], layers)
    return figure


def _accuracy(axis: Axes, epochs: Rows) -> None:
    numbers = [row["epoch"] for row in epochs]
    axis.plot(numbers, [100 * row["train_accuracy"] for row in epochs], color=GREY, ls="--", label="training")
    axis.plot(numbers, [100 * row["test_accuracy"] for row in epochs], color=BLUE, marker=".", label="test")
    axis.set(ylabel="accuracy (%)")
    _number_epochs(axis)
    axis.legend()


def _number_epochs(axis: Axes) -> None:
    axis.set(xlabel="epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _bits(axis: Axes, epochs: Rows) -> None:
    """Flips on a logarithmic axis at the left, entropy at the right."""
    numbers = [row["epoch"] for row in epochs]
    flips = [100 * row["flip_rate"] for row in epochs]
    axis.plot(numbers, flips, color=ORANGE, marker=".", label="flips")
    axis.set(ylabel="weights flipped since the epoch before (%)")
    _number_epochs(axis)
    if min(flips) > 0:
        axis.set_yscale("log")
    right = axis.twinx()
    right.plot(numbers, [row["bit_entropy"] for row in epochs], color=BLUE, marker=".", ls="--", label="entropy")
    right.set(ylabel="entropy of a filter (bits)", ylim=(0, 1.05))
    right.spines["right"].set_visible(True)
    axis.legend(handles=[*axis.lines, *right.lines], loc="lower left")


def _ratios(axis: Axes, layers: Rows) -> None:
    """Mean share of +1 of each layer's filters, and their range."""
    rows = range(len(layers))
    axis.hlines(
        rows,
        [100 * layer["ratio_min"] for layer in layers],
        [100 * layer["ratio_max"] for layer in layers],
        color=ORANGE,
        lw=3,
        label="lowest to highest filter",
    )
    axis.plot([100 * layer["ratio_mean"] for layer in layers], rows, "o", color=BLUE, ms=4, label="mean")
    axis.axvline(50, color=GREY, lw=0.8, ls=":")
    axis.set(xlabel="share of +1 (%)", xlim=(0, 100))
    _name_rows(axis, layers)
    axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _sensitivity(axis: Axes, layers: Rows) -> None:
    """The loss when one layer is changed, against that of the network as it is."""
    rows = np.arange(len(layers))
    for key, colour, marker, label in (
        ("latent_change", BLUE, "o", "latents in place of bits"),
        ("flip_change", VERMILION, "x", "5 % of the bits flipped"),
    ):
        axis.plot([layer[key] for layer in layers], rows, marker, color=colour, ms=5, label=label)
    axis.axvline(0, color=GREY, lw=0.8, ls=":")
    axis.set(xlabel="change of the loss")
    _name_rows(axis, layers)
    axis.legend(ncols=1, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _name_rows(axis: Axes, layers: Rows) -> None:
    axis.set(yticks=list(range(len(layers))), yticklabels=[layer["name"] for layer in layers])
    axis.invert_yaxis()


# --- analyze.training -----------------------------------------------------------------------------


def _training(records: Rows) -> Figure:
    """A panel for each quantity with a curve for each layer, the first ones dark."""
    names = list(records[-1]["layers"])
    colours = colormaps["cividis"](np.linspace(0, 0.92, len(names)))
    curves = [curve for curve in _CURVES if any(_points(records, name, curve[0]) for name in names)]
    columns = math.ceil(len(curves) / 2)
    figure = Figure(figsize=(0.8 + 3.4 * columns, 6.2), layout="constrained")
    panels = list(figure.subplots(2, columns, squeeze=False).flat)
    for axis, (key, label, percent) in zip(panels, curves, strict=False):
        for name, colour, marker in zip(names, colours, _markers(len(names)), strict=True):
            points = _points(records, name, key)
            values = [100 * y if percent else y for y in points.values()]
            axis.plot(list(points), values, color=colour, marker=marker, label=name)
        axis.set(ylabel=label)
        _number_epochs(axis)
        if key == "p_star":
            _name_laws(axis)
    for axis in panels[len(curves) :]:
        axis.remove()
    handles = list(figure.axes[0].lines)
    if len(names) > _NAMED:  # evenly chosen, first and last among them
        handles = [handles[i] for i in np.linspace(0, len(names) - 1, _NAMED).round().astype(int)]
    figure.legend(handles=handles, loc="outside lower center", ncols=_NAMED)
    return figure


def _points(records: Rows, layer: str, key: str) -> dict[int, float]:
    """The value by epoch, where there is one."""
    values = {line["epoch"]: line["layers"][layer].get(key) for line in records}
    return {epoch: value for epoch, value in values.items() if value is not None}


def _name_laws(axis: Axes) -> None:
    """Lines at the p* of the laws that weights may follow."""
    for law, value in _LAWS.items():
        axis.axhline(value, color=GREY, lw=0.8, ls=":")
        axis.annotate(law, (1.01, value), xycoords=("axes fraction", "data"), va="center", color=GREY)


def _markers(count: int) -> list[str]:
    """A marker for each layer where a legend names them all, to tell them apart without colours."""
    return list("osv^Dx+*"[:count]) if count <= _NAMED else [""] * count


# --- analyze.latents ------------------------------------------------------------------------------


def _latents(layers: Rows) -> Figure:
    """A small panel for each layer."""
    columns = min(4, len(layers))
    rows = math.ceil(len(layers) / columns)
    figure = Figure(figsize=(WIDTH / 4 * max(columns, 2), 0.9 + 1.5 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, layer in zip(panels, layers, strict=False):
        latents.draw(axis, layer)
        axis.set_title(f"{layer['name']}\np* = {layer['p_star']:.3f}")
        axis.set(xlabel="standard deviations" if axis in panels[len(layers) - columns :] else "")
    for axis in panels[len(layers) :]:
        axis.remove()
    figure.legend(handles=[panels[0].patches[0], *panels[0].lines], loc="outside lower center", ncols=3)
    return figure
