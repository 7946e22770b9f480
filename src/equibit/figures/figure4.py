"""Figure 4 of Equal Bits: how losses and accuracies of many trainings are distributed, sign against bi-half.

Conv-2 on CIFAR-10 with batch norm, trainings that differ in their seed only (weights, order and augmentation). For
each quantity two tests of the two samples: Mann-Whitney's, whether one tends to be larger, and Brown and Forsythe's
(Levene's with medians), whether one is spread wider. Full budget: 100 epochs, 100 trainings of each method. --quick: 2
epochs of 10,000 training images, 10 of each; --repeat N for more.

Source: Y. Li, S.-L. Pintea, J. C. van Gemert, "Equal Bits", arXiv:2112.03406.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from equibit.figures.curves import LOOKS, run_rows
from equibit.figures.kind import Drawing, Kind
from equibit.figures.plan import BI_HALF, CONV2, QUICK_LAST, SIGN, Found, Panel, Setting
from equibit.figures.runs import RunRecord
from equibit.figures.style import BLACK, WIDTH
from equibit.spread import Spread

FULL, FEW = 100, 10
QUANTITIES: dict[str, tuple[str, Callable[[RunRecord], float]]] = {
    "train_loss": ("training loss", lambda run: float(run.epochs[-1]["train_loss"])),
    "test_loss": ("test loss", lambda run: float(run.epochs[-1]["test_loss"])),
    "test_accuracy": ("test accuracy (%)", lambda run: 100 * run.final_accuracy),
}


def panels(quick: bool) -> tuple[Panel, ...]:
    """Two methods, many seeds."""
    return (
        Panel(
            "Conv-2, CIFAR-10",
            {**CONV2, "data.name": "cifar10"},
            (
                Setting("sign", "cifar10-conv2-sign.common-1w32a-short", SIGN),
                Setting("bi-half", "cifar10-conv2-bi_half.common-1w32a-short", BI_HALF),
            ),
            QUICK_LAST if quick else {"train.epochs": 100},
            seeds=FEW if quick else FULL,
        ),
    )


def _compose(found: Sequence[Found]) -> Drawing:
    (panel,) = found
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    facts = {}
    for axis, (key, (label, quantity)) in zip(figure.subplots(1, 3), QUANTITIES.items(), strict=True):
        samples = {series.setting.label: [quantity(run) for run in series.runs] for series in panel.series}
        _strips(axis, samples)
        tests = compare(*samples.values()) if len(samples) > 1 else None
        axis.set(xlabel=label, title=_verdict(tests))
        facts[key] = {"samples": {name: asdict(Spread.of(values)) for name, values in samples.items()}, "tests": tests}
    rows = run_rows(found, {key: quantity for key, (_, quantity) in QUANTITIES.items() if key != "test_accuracy"})
    return Drawing(figure, rows, {"distributions": facts})


def compare(first: Sequence[float], second: Sequence[float]) -> dict[str, float] | None:
    """p values of two tests of two samples: of their location and of their spread; None of fewer than 3 values."""
    if min(len(first), len(second)) < 3:
        return None
    location = stats.mannwhitneyu(first, second, alternative="two-sided")
    spread = stats.levene(first, second, center="median")
    return {"mann_whitney_p": float(location.pvalue), "brown_forsythe_p": float(spread.pvalue)}


def _verdict(tests: dict[str, float] | None) -> str:
    if tests is None:
        return "too few runs for a test"
    location, spread = tests.values()
    return f"same location: p = {location:.2g}\nsame spread: p = {spread:.2g}"


def _strips(axis: Axes, samples: dict[str, list[float]]) -> None:
    """Every run a point, one strip a method, a box of the quartiles and the median; mean and deviation in words."""
    for place, (label, values) in enumerate(samples.items()):
        colour, marker, _ = LOOKS[label]
        lifts = [place + 0.32 * ((0.618 * i) % 1 - 0.5) for i in range(len(values))]  # evenly, and always the same
        axis.plot(values, lifts, ls="", marker=marker, color=colour, ms=3.5, alpha=0.6, mew=0)
        low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
        axis.barh(place, high - low, 0.5, left=low, fill=False, edgecolor=BLACK, lw=0.9)
        axis.vlines(median, place - 0.25, place + 0.25, color=BLACK, lw=1.6)
        spread = Spread.of(values)
        deviation = "" if spread.std is None else f" ± {spread.std:.3g}"
        text = f"{label}: {spread.mean:.4g}{deviation}"
        axis.text(0.5, place + 0.42, text, transform=axis.get_yaxis_transform(), ha="center", va="center", fontsize=8)
    axis.set(yticks=[], ylim=(-0.5, len(samples) - 0.4))
    axis.spines["left"].set_visible(False)


FIGURE = Kind(
    "4",
    "Losses and accuracies of repeated trainings",
    "Final values of every training; box: quartiles and median; numbers: mean ± standard deviation; p: Mann-Whitney "
    "(location), Brown-Forsythe (spread).",
    panels,
    _compose,
)
