"""`equibit results`: the page of everything that was measured."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from equibit import results
from equibit.cli import output
from equibit.cli.verb import Verb, add_json


def _add(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("--from", metavar="FOLDER", default="results", help="folder of the records")
    parser.add_argument("--out", metavar="FILE.md", default="RESULTS.md", help="the page to write")
    add_json(parser)


def _run(args: Namespace) -> int:
    records, page = Path(args["from"]), Path(args.out)
    files = results.draw(records)
    found = results.collect(records)
    results.write(found, records, page)
    cells = [cell for paper in found.papers for cell in paper.cells]
    text = (
        f"{page}: {sum(len(g.runs) for g in found.groups)} runs; of {len(cells)} cells of the papers' tables "
        f"{sum(cell.full for cell in cells)} run at full length, {sum(bool(cell.groups) for cell in cells)} at any. "
        f"{len(files)} pictures in {records / results.FIGURES}"
    )
    output.result(text, found.to_dict(), as_json=args.json)
    return 0


RESULTS = Verb(
    "Writes one page from the records of a folder: every number of the papers' tables beside ours (how many runs, "
    "spread, epochs, final and best), our own comparisons, the figures of the papers, timings. Draws the pictures into "
    "figures/ below the records.",
    _add,
    _run,
)
