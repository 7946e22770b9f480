"""What several figures draw in the same way: a value through training, points with their range, rows of numbers."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from equibit.figures.plan import Found, Series
from equibit.figures.runs import RunRecord
from equibit.figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

Trace = Sequence[tuple[int, float]]  # (epoch, value)
Values = Callable[[RunRecord], Trace]


class Look(NamedTuple):
    """Colour, marker and line together tell curves apart, so that any one of them may be lost."""

    colour: str
    marker: str
    line: str


LOOKS = {
    "sign": Look(ORANGE, "s", "--"),
    "IR-Net": Look(GREEN, "^", "-."),
    "bi-half": Look(BLUE, "o", "-"),
    "bi-half, rescaled": Look(SKY, "v", (0, (5, 1))),  # type: ignore[arg-type]  # dashes by their lengths
    "MPT": Look(PURPLE, "D", ":"),
    "MPT, equal bits": Look(VERMILION, "P", (0, (3, 1, 1, 1))),  # type: ignore[arg-type]
}
CYCLE = (
    Look(BLACK, "o", "-"), Look(BLUE, "s", "--"), Look(ORANGE, "^", "-."), Look(PURPLE, "D", ":"),
    Look(GREEN, "v", (0, (5, 1))),  # type: ignore[arg-type]
)  # fmt: skip


def metric(key: str, factor: float = 1.0) -> Values:
    """A column of metrics.jsonl, where it is not null, times a factor."""
    return lambda run: [(row["epoch"], factor * row[key]) for row in run.epochs if row.get(key) is not None]


def layer_metric(key: str) -> Values:
    """The mean over the layers of a value of layers.jsonl."""
    return lambda run: run.layer_mean(key)


def through_training(axis: Axes, series: Series, values: Values, look: Look, label: str | None = None) -> None:
    """The mean over a setting's runs, epoch by epoch, in a band from the lowest to the highest run."""
    traces = [dict(values(run)) for run in series.runs]
    epochs = sorted(set.intersection(*(set(trace) for trace in traces)))
    columns = [[trace[epoch] for trace in traces] for epoch in epochs]
    colour, marker, line = look
    axis.plot(
        epochs,
        [statistics.fmean(column) for column in columns],
        color=colour,
        marker=marker,
        ls=line,
        markevery=max(1, len(epochs) // 10),
        label=series.setting.label if label is None else label,
    )
    if len(traces) > 1:
        axis.fill_between(epochs, list(map(min, columns)), list(map(max, columns)), color=colour, alpha=0.15, lw=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def points(axis: Axes, places: Sequence[float], values: Sequence[Sequence[float]], look: Look, label: str) -> None:
    """The means of several groups of values, joined, each with a bar from the lowest to the highest."""
    means = [statistics.fmean(group) for group in values]
    below = [mean - min(group) for mean, group in zip(means, values, strict=True)]
    above = [max(group) - mean for mean, group in zip(means, values, strict=True)]
    bars = (below, above) if any(len(group) > 1 for group in values) else None
    colour, marker, line = look
    axis.errorbar(places, means, bars, color=colour, marker=marker, ls=line, capsize=2.5, label=label)


def logarithmic(axis: Axes) -> None:
    """A logarithmic vertical axis with plain numbers at 1, 2 and 5 of every decade."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def final_percent(series: Series) -> list[float]:
    """Final test accuracies of a setting's runs in percent."""
    return [100 * run.final_accuracy for run in series.runs]


def epoch_rows(found: Sequence[Found], values: Mapping[str, Values]) -> list[dict[str, Any]]:
    """One row for every run and epoch: panel, series, seed, epoch, and the values by name."""
    rows = []
    for panel, series, run in _runs(found):
        columns = {name: dict(value(run)) for name, value in values.items()}
        for epoch in range(1, len(run.epochs) + 1):
            place = {**_place(panel, series), "seed": run.seed, "epoch": epoch}
            rows.append(place | {name: column.get(epoch) for name, column in columns.items()})
    return rows


def run_rows(found: Sequence[Found], values: Mapping[str, Callable[[RunRecord], Any]]) -> list[dict[str, Any]]:
    """One row for every run: panel, series, x where there is one, seed, accuracies, and the values by name."""
    return [
        {
            **_place(panel, series),
            "seed": run.seed,
            "final_accuracy": run.final_accuracy,
            "best_accuracy": run.best_accuracy,
            **{name: value(run) for name, value in values.items()},
        }
        for panel, series, run in _runs(found)
    ]


def _place(found: Found, series: Series) -> dict[str, Any]:
    x = {} if series.setting.x is None else {"x": series.setting.x}
    return {"panel": found.panel.title, "series": series.setting.label, **x}


def _runs(found: Sequence[Found]) -> list[tuple[Found, Series, RunRecord]]:
    return [(panel, series, run) for panel in found for series in panel.series for run in series.runs]
