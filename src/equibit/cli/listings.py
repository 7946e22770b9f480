"""`equibit methods`, `models`, `recipes` and `data`: what there is."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from equibit import data, methods, models, recipes
from equibit.cli import output
from equibit.cli.runs import use_data
from equibit.cli.verb import Verb, add_json
from equibit.errors import InputError
from equibit.tables import render


def _listing(what: str, rows: Callable[[], list[dict[str, Any]]]) -> Verb:
    """A verb that prints a table of dicts with the same keys."""

    def run(args: Namespace) -> int:
        found = rows()
        text = render(list(found[0]), [[_cell(v) for v in row.values()] for row in found])
        output.result(text, found, as_json=args.json)
        return 0

    return Verb(f"Lists {what}.", lambda parser, words: add_json(parser), run)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items()) or "-"
    return "-" if value is None else str(value)


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").splitlines()[0]


def _methods() -> list[dict[str, Any]]:
    return [
        {
            "name": key,
            "arguments": {n: p.default for n, p in inspect.signature(cls).parameters.items()},
            "about": _first_line(inspect.getmodule(cls)),
        }
        for key, cls in sorted(methods.REGISTRY.items())
    ]


def _models() -> list[dict[str, Any]]:
    return [
        {"name": e.name, "options": {k: "|".join(v) for k, v in e.options.items()}, "about": e.title}
        for e in models.entries()
    ]


def _add_data(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("action", choices=["list", "fetch", "check"], help="what to do with the data sets")
    parser.add_argument("names", nargs="*", help="data sets; all of them if none is named")
    parser.add_argument("--data", help="folder of the data sets, instead of EQUIBIT_DATA")
    add_json(parser)


def _run_data(args: Namespace) -> int:
    root = use_data(args.data)
    unknown = [name for name in args.names if name not in data.names()]
    if unknown:
        raise InputError(f"unknown data set {unknown[0]!r}; known: {', '.join(data.names())}.")
    if args.action == "fetch" and not args.names:
        raise InputError(f"name the data sets to fetch: {', '.join(data.names())}.")
    names = args.names or data.names()
    return {"list": _list_data, "fetch": _fetch_data, "check": _check_data}[args.action](names, root, args.json)


def _list_data(names: list[str], root: Path | None, as_json: bool) -> int:
    rows = []
    for entry in data.entries():
        if entry.name in names:
            files = data.check(entry.name, root)
            state = "here" if all(f.present for f in files) else "not here"
            rows.append({"name": entry.name, "state": state, "about": entry.title})
    where = f"\nfolder: {root or data.root()}"
    text = render(("name", "state", "about"), [list(r.values()) for r in rows]) + where
    output.result(text, rows, as_json=as_json)
    return 0


def _fetch_data(names: list[str], root: Path | None, as_json: bool) -> int:
    rows = []
    for name in names:
        output.note(f"fetching {name} ...")
        rows.append({"name": name, "files": [str(path) for path in data.fetch(name, root)]})
    text = "\n".join(f"{r['name']}: {', '.join(r['files'])}" for r in rows)
    output.result(text, rows, as_json=as_json)
    return 0


def _check_data(names: list[str], root: Path | None, as_json: bool) -> int:
    rows = [{"name": name, **vars(found)} for name in names for found in data.check(name, root)]
    cells = [(r["name"], Path(r["file"]).name, _cell(r["images"]), r["message"]) for r in rows]
    output.result(render(("data set", "file", "images", "state"), cells), rows, as_json=as_json)
    return 0 if all(r["checksum_ok"] for r in rows) else 1


METHODS = _listing("the binarisation methods and their arguments", _methods)
MODELS = _listing("the networks and their options", _models)
RECIPES = _listing("the recipes that `equibit train` knows by name", recipes.overview)
DATA = Verb(
    "list: what is here. fetch: download and check. check: do the files equal the published ones, and how many images "
    "do they hold? Exit code 1 if one differs.",
    _add_data,
    _run_data,
)
