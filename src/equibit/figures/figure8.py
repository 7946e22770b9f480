"""Figure 8 of Equal Bits: accuracy against the share of pruned weights, with and without equal bits.

Five ways to keep the same share of the weights: sign, keeping the largest of a layer; bi-half, keeping the two ends of
each filter's order; the same times 1 / sqrt(kept share); multi-prize tickets (MPT: random signs, and learned scores
that decide what stays); and MPT with as many -1 as +1 in every filter. All are trained alike: same network with batch
norm, same optimiser, first and last layer float. The recipe of the paper's MPT is not known to us.

Full budget: Conv-2/4/6/8 on CIFAR-10, 100 epochs, and ResNet-18 on CIFAR-100, 60 epochs; 3 seeds. --quick: Conv-2, 2
epochs of 10,000 training images, 1 seed, 22 trainings.

Sources: Y. Li, S.-L. Pintea, J. C. van Gemert, "Equal Bits", arXiv:2112.03406; J. Diffenderfer, B. Kailkhura,
"Multi-Prize Lottery Ticket Hypothesis", arXiv:2103.09377.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equibit.figures.curves import LOOKS, final_percent, points, run_rows
from equibit.figures.kind import Drawing, Kind
from equibit.figures.plan import BI_HALF, CONV2, MULTI_PRIZE, QUICK_LAST, RESNET18, SIGN, Found, Panel, Setting
from equibit.figures.style import WIDTH, legend_above

CURVES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {  # the method, and what is changed in it
    "sign": (SIGN, {}),
    "bi-half": (BI_HALF, {}),
    "bi-half, rescaled": (BI_HALF, {"method.rescale": True}),
    "MPT": (MULTI_PRIZE, {}),
    "MPT, equal bits": (MULTI_PRIZE, {"method.equal_bits": "exact"}),
}
UNPRUNED = ("sign", "bi-half")  # unpruned, the others are bi-half again, or keep all their random signs
DENSITIES = (1.0, 0.8, 0.5, 0.2, 0.1)


def panels(quick: bool) -> tuple[Panel, ...]:
    """One panel for each network."""
    conv2 = Panel(
        "Conv-2, CIFAR-10",
        {**CONV2, "data.name": "cifar10"},
        _settings("cifar10-conv2-{method}.common-1w32a-short"),
        QUICK_LAST if quick else {"train.epochs": 100},
        seeds=1 if quick else 3,
    )
    deeper = [
        Panel(
            f"Conv-{depth}, CIFAR-10",
            {**CONV2, "model.name": f"conv{depth}", "data.name": "cifar10"},
            _settings(f"cifar10-conv{depth}-bi_half-1w32a-short"),
            {"train.epochs": 100, "model.block": "hardtanh"},
            seeds=3,
        )
        for depth in (4, 6, 8)
    ]
    resnet18 = Panel(
        "ResNet-18, CIFAR-100",
        {**RESNET18, "data.name": "cifar100", "activation": None},
        _settings("cifar100-resnet18-bi_half-1w32a-short"),
        seeds=3,
    )
    return (conv2,) if quick else (conv2, *deeper, resnet18)


def _settings(recipe: str) -> tuple[Setting, ...]:
    """All curves, point by point, from a recipe that has a name for every {method}, or else with the method changed."""
    settings = []
    for label, (method, changed) in CURVES.items():
        key = method["method.name"]
        named = {} if "{method}" in recipe else {"method.name": key}
        for density in DENSITIES if label in UNPRUNED else DENSITIES[1:]:
            kept = {} if density == 1 else {"method.density": density}
            changes = {**named, **changed, **kept}
            settings.append(Setting(label, recipe.format(method=key), method, changes, round(1 - density, 6)))
    return tuple(settings)


def _compose(found: Sequence[Found]) -> Drawing:
    columns = min(len(found), 3)
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(WIDTH, 0.7 + 2.7 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis, panel in zip(axes, found, strict=False):
        _accuracies(axis, panel)
    for axis in axes[len(found) :]:
        axis.set_axis_off()
    legend_above(figure, axes[0])
    return Drawing(figure, run_rows(found, {}))


def _accuracies(axis: Axes, found: Found) -> None:
    for label in CURVES:
        drawn = [series for series in found.series if series.setting.label == label]
        if drawn:
            shares = [100 * float(series.setting.x or 0) for series in drawn]
            points(axis, shares, [final_percent(series) for series in drawn], LOOKS[label], label)
    axis.set(title=found.panel.title, xlabel="pruned weights (%)", ylabel="final test accuracy (%)")
    axis.set_xticks([round(100 * (1 - density)) for density in DENSITIES])


FIGURE = Kind(
    "8",
    "Accuracy against the share of pruned weights",
    "Final accuracy; every way keeps the same share of weights and is trained alike. Bars, where seeds are several: "
    "lowest to highest.",
    panels,
    _compose,
)
