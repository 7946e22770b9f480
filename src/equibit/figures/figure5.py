"""Figure 5 of Equal Bits: accuracy against the share of +1, held in every filter, from 0.1 to 0.9.

Conv-2 on CIFAR-10 and on CIFAR-100, with batch norm: without it a share away from one half shifts what every layer
sees, and the network shows how it bears that rather than what the bits hold. Full budget: 100 epochs, 5 seeds. --quick:
2 epochs of 10,000 training images, 3 seeds, 54 trainings.

Source: Y. Li, S.-L. Pintea, J. C. van Gemert, "Equal Bits", arXiv:2112.03406.
"""

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equibit.figures.curves import LOOKS, final_percent, points, run_rows
from equibit.figures.kind import Drawing, Kind
from equibit.figures.plan import BI_HALF, CONV2, QUICK_LAST, Found, Panel, Setting
from equibit.figures.style import GREY, WIDTH

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
RECIPES = {"cifar10": "cifar10-conv2-bi_half.common-1w32a-short", "cifar100": "cifar100-conv2-bi_half-1w32a-short"}


def panels(quick: bool) -> tuple[Panel, ...]:
    """One panel for each data set."""
    return tuple(
        Panel(
            f"Conv-2, CIFAR-{data.removeprefix('cifar')}",
            {**CONV2, "data.name": data},
            tuple(Setting("bi-half", recipe, BI_HALF, {"method.ratio": ratio}, ratio) for ratio in RATIOS),
            {**(QUICK_LAST if quick else {"train.epochs": 100}), "model.block": "hardtanh"},
            seeds=3 if quick else 5,
        )
        for data, recipe in RECIPES.items()
    )


def _compose(found: Sequence[Found]) -> Drawing:
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        _accuracies(axis, panel)
    facts = {panel.panel.title: _shape(panel) for panel in found}
    return Drawing(figure, run_rows(found, {}), {"ratios": facts})


def _accuracies(axis: Axes, found: Found) -> None:
    """The mean of each share, its range, and every run."""
    ratios = [float(series.setting.x or 0) for series in found.series]
    look = LOOKS["bi-half"]
    for ratio, series in zip(ratios, found.series, strict=True):
        values = final_percent(series)
        axis.plot([ratio] * len(values), values, ls="", marker="_", color=GREY, ms=7)
    points(axis, ratios, [final_percent(series) for series in found.series], look, "mean and range over seeds")
    axis.axvline(0.5, color=GREY, lw=0.8, ls=":")
    axis.set(title=found.panel.title, xlabel="share of +1 in every filter", ylabel="final test accuracy (%)")
    axis.set_xticks(RATIOS)


def _shape(found: Found) -> dict[str, Any]:
    """Where the mean is highest, and how far apart those of p and 1 - p are, on average (None without a pair)."""
    means = {series.setting.x: statistics.fmean(final_percent(series)) / 100 for series in found.series}
    pairs = [
        (means[p], means[q]) for p, q in zip(RATIOS, reversed(RATIOS), strict=True) if p < q and {p, q} <= {*means}
    ]
    asymmetry = statistics.fmean(abs(low - high) for low, high in pairs) if pairs else None
    return {"best": max(means, key=lambda ratio: means[ratio]), "asymmetry": asymmetry}


FIGURE = Kind(
    "5",
    "Accuracy against the share of +1",
    "bi-half with the share of +1 held in every filter; line: mean over seeds, bars: lowest to highest, dashes: runs.",
    panels,
    _compose,
)
