"""A figure as files: NAME.png, NAME.svg, NAME.csv and NAME.json, the same bytes whenever the runs are the same."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from equibit.errors import FileError
from equibit.figures import runs
from equibit.figures.kind import Kind
from equibit.figures.plan import Found, Panel, Series, gather
from equibit.figures.style import SMALL, STYLE, save, write_rows
from equibit.spread import Spread

_LINE = 118  # characters of the small print that fit below a picture


def publish(kind: Kind, panels: Sequence[Panel], folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Draws a figure from the runs below some folders.

    Args:
        kind: The figure.
        panels: What it should show; of `kind.panels`.
        folders: Where to look for runs.
        out: Where to; created.

    Returns:
        The content of NAME.json.

    Raises:
        FileError: No run fits, a folder does not exist, or `out` cannot be written.
        FormatError: A file of a run is damaged.
    """
    records = runs.find(folders) if panels else []
    gathered = [gather(panel, records) for panel in panels]
    found = [panel for panel in gathered if panel.series]
    if panels and not found:
        where = ", ".join(map(str, folders))
        raise FileError(
            f"none of the {len(records)} runs below {where} is a finished run of figure {kind.name}; "
            f"`equibit figure {kind.name} --quick` trains them (without --quick: at full length)."
        )
    with matplotlib.rc_context(dict(STYLE)):
        drawing = kind.compose(found)
        data = {
            "figure": kind.name,
            "title": kind.title,
            "caption": kind.caption,
            **drawing.facts,
            "panels": [_panel(panel) for panel in found],
            "missing": [text for panel in gathered for text in panel.missing] + list(drawing.missing),
            **_origin(found),
        }
        _small_print(drawing.figure, [kind.caption, *_budgets(found)])
        _write(kind.name, drawing.figure, drawing.rows, data, out)
    return data


def _write(name: str, figure: Figure, rows: Sequence[Mapping[str, Any]], data: Mapping[str, Any], out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        save(figure, out / name)
        write_rows(out / f"{name}.csv", rows)
        (out / f"{name}.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write into {out}: {error.strerror or error}.") from error


def _panel(found: Found) -> dict[str, Any]:
    return {
        "title": found.panel.title,
        "budget": _budget(found),
        "common": dict(found.common),
        "left_out": found.left_out,
        "series": [_series(series) for series in found.series],
    }


def _series(series: Series) -> dict[str, Any]:
    return {
        "name": series.setting.name,
        "where": dict(series.setting.where),
        "n": len(series.runs),
        "seeds": [run.seed for run in series.runs],
        "epochs": len(series.runs[0].epochs),
        "final_accuracy": asdict(Spread.of([run.final_accuracy for run in series.runs])),
        "best_accuracy": asdict(Spread.of([run.best_accuracy for run in series.runs])),
    }


def _budgets(found: Sequence[Found]) -> list[str]:
    """How the runs were trained, in a sentence for every different budget; what a panel varies is left out."""
    titles: dict[str, list[str]] = {}
    for panel in found:
        titles.setdefault(_budget(panel), []).append(panel.panel.title)
    return [f"{'; '.join(names)}: {text}." for text, names in titles.items()]


def _budget(found: Found) -> str:
    common, counts = found.common, sorted({len(series.runs) for series in found.series})
    images, tested = common.get("data.train_images"), sorted({int(r.epochs[-1]["test_n"]) for r in _runs([found])})
    varied = {key for series in found.series for key in series.setting.changes}
    decay = None if "optimizer.weight_decay" in varied else f"L2 {common.get('optimizer.weight_decay', 0):g}"
    parts = (
        f"n = {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))}",
        f"{len(found.series[0].runs[0].epochs)} epochs of {'all' if images is None else f'{images:,}'} images",
        f"block {common['model.block']}" if "model.block" in common else None,
        f"{common.get('optimizer.name')} {common.get('optimizer.lr', 0):g}",
        decay,
        common.get("schedule.name"),
        f"tested on {' or '.join(f'{n:,}' for n in tested)}",
    )
    return ", ".join(part for part in parts if part)


def _origin(found: Sequence[Found]) -> dict[str, Any]:
    """Where the numbers come from: recipes, commits, hardware and versions of all runs."""
    records = _runs(found)
    return {
        "recipes": sorted({str(record.get("name")) for record in records}),
        "commits": sorted({record.summary["commit"] for record in records if record.summary.get("commit")}),
        "hardware": _different([record.summary.get("hardware") for record in records]),
        "versions": _different([record.summary.get("versions") for record in records]),
    }


def _different(values: Sequence[Any]) -> list[Any]:
    texts = sorted({json.dumps(value, sort_keys=True) for value in values if value is not None})
    return [json.loads(text) for text in texts]


def _runs(found: Sequence[Found]) -> list[runs.RunRecord]:
    return [run for panel in found for series in panel.series for run in series.runs]


def _small_print(figure: Figure, sentences: Sequence[str]) -> None:
    text = "\n".join(textwrap.fill(sentence, _LINE) for sentence in sentences)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=SMALL, color="#444444")
