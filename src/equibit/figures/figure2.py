"""Figure 2 of Equal Bits: bit flips through training, for sign, IR-Net and bi-half.

A flip is a binary weight that differs from what it was after the epoch before; the share is of all binary weights. The
caption names no network: this takes the runs of figure 1, with its budgets.

Source: Y. Li, S.-L. Pintea, J. C. van Gemert, "Equal Bits", arXiv:2112.03406.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equibit.figures.curves import LOOKS, epoch_rows, logarithmic, metric, through_training
from equibit.figures.figure1 import panels
from equibit.figures.kind import Drawing, Kind
from equibit.figures.plan import Found
from equibit.figures.style import WIDTH, legend_above

FLIPS = metric("flip_rate", 100)


def _compose(found: Sequence[Found]) -> Drawing:
    figure = Figure(figsize=(WIDTH, 0.5 + 2.7 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), 2, squeeze=False)
    for (left, right), panel in zip(axes, found, strict=True):
        _flips(left, panel)
        _accuracy(right, panel)
    legend_above(figure, axes[0][0])
    rows = epoch_rows(found, {"flip_rate": metric("flip_rate"), "test_accuracy": metric("test_accuracy")})
    return Drawing(figure, rows)


def _flips(axis: Axes, found: Found) -> None:
    for series in found.series:
        through_training(axis, series, FLIPS, LOOKS[series.setting.label])
    axis.set(title=f"flips: {found.panel.title}", xlabel="epoch", ylabel="flipped weights (%)")
    if all(value > 0 for series in found.series for run in series.runs for _, value in FLIPS(run)):
        logarithmic(axis)


def _accuracy(axis: Axes, found: Found) -> None:
    for series in found.series:
        through_training(axis, series, metric("test_accuracy", 100), LOOKS[series.setting.label])
    axis.set(title=f"accuracy: {found.panel.title}", xlabel="epoch", ylabel="test accuracy (%)")


FIGURE = Kind(
    "2",
    "Bit flips through training",
    "Share of binary weights that changed since the epoch before. Bands: lowest to highest seed.",
    panels,
    _compose,
)
