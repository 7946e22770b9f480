"""`equibit figure`: a figure of a paper, from recorded runs or from runs that are trained for it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from equibit.cli import output
from equibit.cli.verb import Verb, add_json
from equibit.errors import InputError
from equibit.figures import catalog
from equibit.figures.kind import Kind
from equibit.figures.plan import Panel
from equibit.figures.publish import publish
from equibit.tables import render

_SHOWN = 8  # lines of what is missing


def _add(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("name", help=f"one of {', '.join(catalog.NAMES)}")
    parser.add_argument(
        "--from", nargs="+", metavar="RUNS", dest="source", help="train nothing; draw from the runs below these folders"
    )
    parser.add_argument(
        "--out", default="figures", metavar="DIR", help="folder of the files, and of runs/ if it trains"
    )
    parser.add_argument(
        "--quick", action="store_true", help="train as little as a CPU can: a part of the images, briefly"
    )
    parser.add_argument("--repeat", type=int, metavar="N", help="seeds of every setting, instead of the figure's own")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at the same time, on one device")
    parser.add_argument(
        "--replicas", type=int, default=1, metavar="N", help="runs trained at once as one stack, as of `equibit sweep`"
    )
    add_json(parser)


def _run(args: Namespace) -> int:
    kind, out = catalog.get(args.name), Path(args.out)
    panels = _panels(kind, args.quick, args.repeat)
    folders, failed = [Path(folder) for folder in args.source or [out / "runs"]], 0
    if panels and not args.source:
        from equibit.cli.figure_runs import train  # noqa: PLC0415  (torch, which drawing does not need)

        failed = train(kind, panels, folders[0], jobs=args.jobs, replicas=args.replicas)
    data = publish(kind, panels, folders, out)
    output.result(_text(kind, data, out), data, as_json=args.json)
    return 1 if failed else 0


def _panels(kind: Kind, quick: bool, repeat: int | None) -> tuple[Panel, ...]:
    if repeat is not None and repeat < 1:
        raise InputError(f"repeat is {repeat}; give 1 or more.")
    panels = kind.panels(quick)
    return panels if repeat is None else tuple(replace(panel, seeds=repeat) for panel in panels)


def _text(kind: Kind, data: Mapping[str, Any], out: Path) -> str:
    parts = [_table(data["panels"]) if data["panels"] else _facts(data)]
    parts += [f"{panel['title']}: {panel['budget']}." for panel in data["panels"]]
    parts += [
        f"{panel['title']}: {panel['left_out']} runs were left out: another budget, or a seed twice."
        for panel in data["panels"]
        if panel["left_out"]
    ]
    parts += [f"missing: {text}" for text in data["missing"][:_SHOWN]]
    parts += [f"missing: {len(data['missing']) - _SHOWN} more, in {kind.name}.json"] * (len(data["missing"]) > _SHOWN)
    return "\n".join([*parts, f"{kind.title}: {out / kind.name}.png, .svg, .csv, .json"])


def _table(panels: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            panel["title"],
            series["name"],
            series["n"],
            *_spread(series["final_accuracy"]),
            *_spread(series["best_accuracy"]),
        )
        for panel in panels
        for series in panel["series"]
    ]
    return render(("panel", "series", "n", "final mean", "range", "best mean", "range"), rows)


def _spread(spread: Mapping[str, float]) -> tuple[str, str]:
    return output.percent(spread["mean"]), f"{100 * spread['min']:.2f} - {output.percent(spread['max'])}"


def _facts(data: Mapping[str, Any]) -> str:
    numbers = {key: value for key, value in data.items() if isinstance(value, int)}
    return render(("", "number"), [(key.replace("_", " "), value) for key, value in numbers.items()])


FIGURE = Verb(
    "Draws a figure of the Equal Bits paper (1 to 8), of SiMaN (siman) or of GWT (gwt) into NAME.png, .svg, .csv and "
    ".json. Trains what it needs into DIR/runs first, at the length that the paper's captions say or with --quick; "
    "called again it trains what is not finished. Figure 6 is exact and needs no training.",
    _add,
    _run,
)
