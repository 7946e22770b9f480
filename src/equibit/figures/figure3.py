"""Figure 3 of Equal Bits: what weight decay and learning-rate decay do to flips and accuracy, for sign and bi-half.

Conv-2 on CIFAR-10 with batch norm. Weight decay: 0, 1e-5, 1e-4, 5e-4 under a cosine; learning-rate decay: none, steps
(times 0.1 after a half and three quarters) and a cosine, under a weight decay of 1e-4. 12 trainings a seed: two serve
both. Full budget: SGD at learning rate 0.1, 100 epochs, 3 seeds. --quick: Adam, with which so short a training shows
the effect of L2, 8 epochs of 5,000 training images, 1 seed.

Source: Y. Li, S.-L. Pintea, J. C. van Gemert, "Equal Bits", arXiv:2112.03406.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equibit.figures.curves import CYCLE, LOOKS, epoch_rows, final_percent, metric, points, through_training
from equibit.figures.kind import Drawing, Kind
from equibit.figures.plan import BI_HALF, CONV2, QUICK, QUICK_EPOCHS, SGD, SIGN, Found, Panel, Series, Setting
from equibit.figures.style import WIDTH, legend_above

FULL_EPOCHS = 100
DECAYS = (0.0, 1e-5, 1e-4, 5e-4)
METHODS = (("sign", SIGN), ("bi-half", BI_HALF))


def panels(quick: bool) -> tuple[Panel, ...]:
    """One panel of weight decays, one of learning-rate decays."""
    epochs = QUICK_EPOCHS if quick else FULL_EPOCHS
    budget = QUICK if quick else {"train.epochs": FULL_EPOCHS, **SGD}
    schedules: Mapping[str, Any] = {"constant": [], "step": [epochs // 2, 3 * epochs // 4], "cosine": []}
    by_decay = {f"{decay:g}": _varied(decay, "cosine", []) for decay in DECAYS}
    by_schedule = {name: _varied(1e-4, name, milestones) for name, milestones in schedules.items()}
    return tuple(
        Panel(
            title,
            {**CONV2, "data.name": "cifar10"},
            tuple(
                Setting(label, f"cifar10-conv2-{method['method.name']}.common-1w32a-short", method, changes, x)
                for label, method in METHODS
                for x, changes in varied.items()
            ),
            budget,
            seeds=1 if quick else 3,
        )
        for title, varied in (("weight decay", by_decay), ("learning-rate decay", by_schedule))
    )


def _varied(decay: float, schedule: str, milestones: Sequence[int]) -> Mapping[str, Any]:
    return {"optimizer.weight_decay": decay, "schedule.name": schedule, "schedule.milestones": milestones}


def _compose(found: Sequence[Found]) -> Drawing:
    figure = Figure(figsize=(WIDTH, 0.6 + 2.9 * len(found)), layout="constrained")
    rows = np.atleast_1d(np.asarray(figure.subfigures(len(found), 1)))
    for row, panel in zip(rows, found, strict=True):
        axes = row.subplots(1, 3)
        for axis, (label, _) in zip(axes, METHODS, strict=False):
            _flips(axis, panel, [series for series in panel.series if series.setting.label == label], label)
        axes[1].sharey(axes[0])
        legend_above(row, next((axis for axis in axes if axis.lines), axes[0]), title=panel.panel.title)
        _accuracies(axes[2], panel)
    values = {"flip_rate": metric("flip_rate"), "test_accuracy": metric("test_accuracy")}
    return Drawing(figure, epoch_rows(found, values))


def _flips(axis: Axes, found: Found, drawn: Sequence[Series], method: str) -> None:
    places = _places(found)
    for series in drawn:
        through_training(axis, series, metric("flip_rate", 100), CYCLE[places[series.setting.x]], f"{series.setting.x}")
    axis.set(title=f"flips, {method}", xlabel="epoch", ylabel="flipped weights (%)")


def _accuracies(axis: Axes, found: Found) -> None:
    places = _places(found)
    for label, _ in METHODS:
        drawn = [series for series in found.series if series.setting.label == label]
        if drawn:
            stand = [places[series.setting.x] for series in drawn]
            points(axis, stand, [final_percent(series) for series in drawn], LOOKS[label], label)
    axis.set(title="final accuracy", xlabel=found.panel.title, ylabel="test accuracy (%)")
    axis.set_xticks(range(len(places)), [str(x) for x in places])
    axis.legend()


def _places(found: Found) -> dict[Any, int]:
    """Where each value of what is varied stands, as planned."""
    return {x: i for i, x in enumerate(dict.fromkeys(setting.x for setting in found.panel.settings))}


FIGURE = Kind(
    "3",
    "Weight decay and learning-rate decay: flips and accuracy",
    "Conv-2 on CIFAR-10. Flips: binary weights that changed since the epoch before. Where seeds are several, lines are "
    "means and bands or bars reach from the lowest to the highest.",
    panels,
    _compose,
)
