"""Group weight transformations: relaxed against hard accuracy, and the residual, through the continuation.

Training is relaxed (real weights that approach two values a filter), evaluation is hard (those two values). The
accuracy of the relaxed network is recorded beside that of the hard one; the residual is the distance between relaxed
and hard weight, relative to the hard one, averaged over layers. Compared are the schedules of kappa: geometric to 0.01
(ours), linear to 0.01, and constant 1, which never becomes hard. Conv-2 on CIFAR-10 with batch norm. Full budget: 100
epochs, 3 seeds. --quick: 8 epochs of 5,000 training images, 1 seed, 3 trainings.

Source: Y. Shulman, "Group-mean weight transformations", arXiv:2107.01400.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equibit.figures.curves import CYCLE, epoch_rows, layer_metric, logarithmic, metric, through_training
from equibit.figures.kind import Drawing, Kind
from equibit.figures.plan import CONV2, GROUP_TRANSFORM, QUICK, Found, Panel, Setting
from equibit.figures.style import WIDTH, legend_above

SCHEDULES = ("geometric", "linear", "constant")
HARD, RELAXED, RESIDUAL = metric("test_accuracy", 100), metric("relaxed_accuracy", 100), layer_metric("residual")


def panels(quick: bool) -> tuple[Panel, ...]:
    """One panel, a setting for each schedule."""
    return (
        Panel(
            "Conv-2, CIFAR-10",
            {**CONV2, "data.name": "cifar10"},
            tuple(
                Setting(
                    f"kappa {name}",
                    "cifar10-conv2-group_transform.common-1w32a-short",
                    GROUP_TRANSFORM,
                    {"method.schedule": name},
                )
                for name in SCHEDULES
            ),
            QUICK if quick else {"train.epochs": 100},
            seeds=1 if quick else 3,
        ),
    )


def _compose(found: Sequence[Found]) -> Drawing:
    (panel,) = found
    recorded = [series for series in panel.series if all(RESIDUAL(run) for run in series.runs)]
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots(1, 2 if recorded else 1, squeeze=False)[0]
    _accuracies(axes[0], panel)
    legend_above(figure, axes[0], len(panel.series))
    for series in recorded:
        through_training(axes[1], series, RESIDUAL, CYCLE[panel.panel.settings.index(series.setting)])
    if recorded:
        axes[1].set(title="distance to the hard weights", xlabel="epoch", ylabel="||relaxed - hard|| / ||hard||")
        logarithmic(axes[1])
    values = {"hard_accuracy": metric("test_accuracy"), "relaxed_accuracy": metric("relaxed_accuracy")}
    lacking = len(panel.series) - len(recorded)
    missing = (f"the residual of {lacking} schedules: no layers.jsonl",) if lacking else ()
    return Drawing(figure, epoch_rows(found, {**values, "residual": RESIDUAL}), {"gap": _gaps(panel)}, missing)


def _accuracies(axis: Axes, found: Found) -> None:
    """Hard with markers, relaxed thin and without."""
    for series in found.series:
        look = CYCLE[found.panel.settings.index(series.setting)]
        through_training(axis, series, HARD, look, f"{series.setting.label}: hard")
        if all(RELAXED(run) for run in series.runs):
            through_training(axis, series, RELAXED, look._replace(marker=""), "relaxed")
            axis.lines[-1].set_linewidth(0.8)
    axis.set(title=f"accuracy: {found.panel.title}", xlabel="epoch", ylabel="test accuracy (%)")


def _gaps(found: Found) -> dict[str, Any]:
    """Relaxed minus hard accuracy after the last epoch, by schedule and seed, as fractions."""
    return {
        series.setting.label: {
            str(run.seed): run.epochs[-1]["relaxed_accuracy"] - run.final_accuracy
            for run in series.runs
            if run.epochs[-1].get("relaxed_accuracy") is not None
        }
        for series in found.series
    }


FIGURE = Kind(
    "gwt",
    "Group weight transformations: from relaxed to hard",
    "Markers: hard weights, thin lines: relaxed weights of the same training. kappa from 1 to 0.01, or constant 1.",
    panels,
    _compose,
)
