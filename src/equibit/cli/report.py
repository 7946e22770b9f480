"""`equibit report`: one page about a run."""

import tempfile
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from equibit import data, report
from equibit.bench.measure import Report, bench
from equibit.cli import output
from equibit.cli.export import write_onnx
from equibit.cli.runs import open_run, use_data
from equibit.cli.verb import Verb, add_json
from equibit.errors import FileError
from equibit.files import write_text
from equibit.report import Facts
from equibit.tables import size
from equibit.training import Run

_ROUNDS = 11  # turns of each engine, enough for a median


def _add(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("run", help="a run folder; the run may be unfinished")
    parser.add_argument("--out", metavar="FILE.html", help="the page to write; default: report.html in the run folder")
    parser.add_argument("--weights", choices=["final", "best"], default="final", help="which weights of the run")
    parser.add_argument("--data", help="folder of the data sets, instead of EQUIBIT_DATA")
    parser.add_argument("--bench", action="store_true", help="time the exported file beside other engines, too")
    add_json(parser)


def _run(args: Namespace) -> int:
    run = open_run(args.run, args.weights)
    page = Path(args.out) if args.out else run.path / "report.html"
    if not page.parent.is_dir():  # before minutes of scoring
        raise FileError(f"cannot write {page}: there is no folder {page.parent}.")
    pixels = run.recipe.data
    dataset = data.load(pixels.name, root=use_data(args.data), **pixels.options)
    written, speed = _export(run, args.bench)
    facts = report.gather(run, args.weights, dataset, written, speed)
    write_text(page, report.render(facts))
    output.result(_text(page, facts), _found(page, facts), as_json=args.json)
    return 0


def _export(run: Run, timed: bool) -> tuple[int, Report | None]:
    """Bytes and speed of the exported file, which is not kept."""
    with tempfile.TemporaryDirectory(prefix="equibit-report-") as folder:
        path = Path(folder) / f"{run.recipe.name}.onnx"
        return write_onnx(run, path), bench(path, rounds=_ROUNDS) if timed else None


def _text(page: Path, facts: Facts) -> str:
    n = len(facts.predictions.labels)
    return (
        f"{page}: {size(page.stat().st_size)}, needs no network. Accuracy {output.percent(facts.predictions.accuracy)} "
        f"over all {n:,} test images of {facts.dataset.name}"
    )


def _found(page: Path, facts: Facts) -> dict[str, object]:
    return {
        "file": str(page),
        "bytes": page.stat().st_size,
        "accuracy": facts.predictions.accuracy,
        "loss": facts.predictions.loss,
        "n": len(facts.predictions.labels),
        "dataset": facts.dataset.name,
        "onnx_bytes": facts.onnx_bytes,
        "confusion": facts.predictions.matrix.tolist(),
    }


REPORT = Verb(
    "Writes one self-contained HTML page about a run: loss and accuracy, bits and flips of every layer, latent "
    "weights, what it confuses on the whole test set with the images, size of the exported file and, with --bench, its "
    "speed.",
    _add,
    _run,
)
