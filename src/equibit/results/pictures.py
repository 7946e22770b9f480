"""The pictures of the page: the papers' figures, of each comparison every run's final accuracy, and the speeds."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from equibit.errors import FileError
from equibit.figures import catalog, runs, style
from equibit.figures.kind import Kind
from equibit.figures.plan import Panel, gather
from equibit.figures.publish import publish
from equibit.results import published, speed
from equibit.results.collect import FIGURES
from equibit.results.groups import Group, alike, group, select
from equibit.results.published import Comparison


def draw(records: Path) -> list[Path]:
    """Draws what the records hold into `FIGURES` below them; a figure that lacks most of its settings is left out.

    Args:
        records: The folder of records.

    Returns:
        The pictures.

    Raises:
        FileError: There is no such folder, or it cannot be written.
        FormatError: A record is damaged.
    """
    found = runs.find([records])
    out, drawn = records / FIGURES, []
    for kind in map(catalog.get, catalog.NAMES):
        panels = _panels(kind, found)
        if not panels or any(_worth_drawing(panel, found) for panel in panels):
            publish(kind, panels, [records], out)
            drawn.append(out / f"{kind.name}.png")
    groups = group(found)
    for comparison in published.comparisons():
        own = alike(select(groups, comparison.recipes))
        drawn += [_comparison(comparison, own, out)] if own else []
    return drawn + speed.draw(records, out)


def _worth_drawing(panel: Panel, found: Sequence[runs.RunRecord]) -> bool:
    """Whether half of what the panel compares was trained."""
    return 2 * len(gather(panel, found).series) >= len(panel.settings)


def _panels(kind: Kind, found: Sequence[runs.RunRecord]) -> tuple[Panel, ...]:
    """What a figure plans at full length or with the small budget, whichever lacks fewer of its runs here."""
    plans = (kind.panels(False), kind.panels(True))
    return min(plans, key=lambda panels: sum(len(gather(panel, found).missing) for panel in panels))


def _comparison(comparison: Comparison, groups: Sequence[Group], folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _points(comparison, groups, folder / comparison.key)
    except OSError as error:
        raise FileError(f"cannot write into {folder}: {error.strerror or error}.") from error


def _points(comparison: Comparison, groups: Sequence[Group], stem: Path) -> Path:
    with matplotlib.rc_context(dict(style.STYLE)):
        figure = Figure(figsize=(style.WIDTH, 1.1 + 0.3 * len(groups)), layout="constrained")
        axis = figure.subplots()
        for row, own in enumerate(groups):
            values = [100 * run.final_accuracy for run in own.runs]
            axis.plot(values, [row] * len(values), "o", color=style.BLUE, alpha=0.6, mew=0, label="a run")
            axis.plot([100 * own.final.mean], [row], "|", color=style.VERMILION, ms=14, mew=2, label="mean")
        axis.set(
            xlabel="final test accuracy (%)",
            yticks=range(len(groups)),
            yticklabels=[f"{g.method} (n = {len(g.runs)}, {g.epochs} epochs)" for g in groups],
            ylim=(len(groups) - 0.5, -0.5),
        )
        axis.set_title(comparison.title, loc="left")
        axis.grid(axis="x", color=style.GREY, alpha=0.25)
        handles, labels = axis.get_legend_handles_labels()
        axis.legend(handles[:2], labels[:2], ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))
        return style.save(figure, stem)
