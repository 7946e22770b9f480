"""The page as HTML, from report.html.j2 and report.css."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import torch
import yaml
from markupsafe import Markup

import equibit
from equibit.bench.engines import FLOAT
from equibit.bench.measure import Report
from equibit.report import charts, images
from equibit.report.confusion import Predictions
from equibit.report.facts import Facts
from equibit.tables import size

_OPEN_CLASSES = 20  # more than these are folded away


@dataclass(frozen=True)
class Tile:
    """A number in large type."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class ClassRow:
    """How a class was recognised."""

    name: str
    images: int
    accuracy: float | None
    mistaken: str


def render(facts: Facts) -> str:
    """The page: one HTML document that loads nothing."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("equibit.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "size": size, "inline": Markup}
    css = (resources.files("equibit.report") / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        css=Markup(css),
        f=facts,
        run=facts.run,
        recipe=facts.run.recipe,
        version=equibit.__version__,
        tiles=_tiles(facts),
        training=charts.training(facts.run.metrics),
        bits=charts.bits(facts.layers, facts.run.metrics, facts.run.layers),
        latents=charts.latents(facts.layers),
        confusion=charts.confusion(facts.predictions.matrix, facts.dataset.classes),
        classes=_classes(facts.predictions, facts.dataset.classes),
        open_classes=len(facts.dataset.classes) <= _OPEN_CLASSES,
        pairs=_pairs(facts),
        filters=_filters(facts),
        engines=_engines(facts.speed),
        config=yaml.safe_dump(facts.run.recipe.to_dict(), sort_keys=False, default_flow_style=None, width=88),
    )


def _percent(fraction: float | None, digits: int = 2) -> str:
    return "-" if fraction is None else f"{100 * fraction:.{digits}f} %"


def _tiles(facts: Facts) -> list[Tile]:
    last, n = facts.run.metrics[-1], len(facts.predictions.labels)
    best = max(facts.run.metrics, key=lambda row: row["test_accuracy"])
    smaller = facts.size.float_bytes / facts.onnx_bytes
    share = facts.size.binary_parameters / max(facts.size.parameters, 1)
    tiles = [
        Tile(_percent(facts.predictions.accuracy), "test accuracy", f"{facts.which} weights, all {n:,} images"),
        Tile(_percent(best["test_accuracy"]), "best epoch", f"number {best['epoch']}, chosen on the test set"),
        Tile(size(facts.onnx_bytes), "exported file", f"{smaller:.1f} times smaller than float32"),
        Tile(_percent(share, 1), "1-bit parameters", f"of {facts.size.parameters:,}"),
    ]
    if facts.layers:
        tiles.append(Tile(f"{last['bit_entropy']:.4f}", "bits of entropy", "of a filter's weights, mean"))
        tiles.append(Tile(_percent(last["flip_rate"]), "flips", "of the weights, in the last epoch"))
    return tiles


def _classes(predictions: Predictions, names: Sequence[str]) -> list[ClassRow]:
    rows = []
    for number, (name, row) in enumerate(zip(names, predictions.matrix, strict=True)):
        images_, right = int(row.sum()), int(row[number])
        others = row.copy()
        others[number] = 0
        worst = int(others.argmax())
        mistaken = f"{names[worst]} ({others[worst]})" if others[worst] else "-"
        rows.append(ClassRow(name, images_, right / images_ if images_ else None, mistaken))
    return rows


def _pairs(facts: Facts) -> list[dict[str, Any]]:
    names, test = facts.dataset.classes, facts.dataset.test
    found = []
    for pair in facts.pairs:
        shown = []
        for index in pair.examples:
            image = next(test.batches([torch.tensor([index])]))[0][0]
            sure = f"{100 * float(facts.predictions.confidence[index]):.0f} %"
            alt = f"Test image {index}: {names[pair.true]}, taken for {names[pair.predicted]} with {sure}"
            shown.append({"uri": images.photograph(image), "alt": alt, "sure": sure})
        found.append({"true": names[pair.true], "said": names[pair.predicted], "count": pair.count, "examples": shown})
    return found


def _filters(facts: Facts) -> dict[str, Any] | None:
    if facts.filters is None:
        return None
    weights = facts.filters.weights
    filters, channels = images.shown(weights)
    return {
        "layer": facts.filters.layer,
        "uri": images.mosaic(weights),
        "filters": filters,
        "channels": channels,
        "of": weights.shape,
        "pruned": bool((weights == 0).any()),
    }


def _engines(speed: Report | None) -> list[dict[str, str]]:
    if speed is None:
        return []
    base = next((r.median_ms for r in speed.results if r.engine == FLOAT), None)
    return [
        {
            "engine": r.engine,
            "median": f"{r.median_ms:.3f}",
            "range": f"{r.p10_ms:.3f} to {r.p90_ms:.3f}",
            "speed": "-" if base is None else f"{base / r.median_ms:.2f}",
            "file": size(r.file_bytes),
        }
        for r in speed.results
    ]
