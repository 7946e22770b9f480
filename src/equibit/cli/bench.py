"""`equibit bench`: how fast a file runs, here and now, beside other engines."""

from jsonargparse import ArgumentParser, Namespace

from equibit.bench.engines import FLOAT
from equibit.bench.measure import EngineResult, Report, bench
from equibit.cli import output
from equibit.cli.verb import Verb, add_json
from equibit.tables import render, size


def _add(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("file", help="an exported .onnx file, or another one with float inputs")
    parser.add_argument("--threads", type=int, default=1, help="threads of each engine")
    parser.add_argument("--batch", type=int, default=1, help="inputs in a run")
    parser.add_argument("--rounds", type=int, default=31, help="turns of each engine; few for a quick look")
    add_json(parser)


def _run(args: Namespace) -> int:
    with output.progress() as bar:
        task = bar.add_task("timing", total=args.rounds, state="") if bar else None

        def follow(finished: int) -> None:
            if bar is not None and task is not None:
                bar.update(task, completed=finished)

        report = bench(args.file, threads=args.threads, batch=args.batch, rounds=args.rounds, on_round=follow)
    output.result(_table(report), report.to_dict(), as_json=args.json)
    return 0


def _table(report: Report) -> str:
    base = next((r.median_ms for r in report.results if r.engine == FLOAT), None)
    columns = ("engine", "median ms", "p10", "p90", "speed", "load ms", "cold start", "peak memory", "file", "error")
    lines = [
        render(columns, [_row(result, base) for result in report.results]),
        f"{report.cpu}, kernel {report.kernel}, {report.threads} thread(s), batch {report.batch}. Speed is relative to "
        f"{FLOAT}; in brackets the memory before the file was opened; error to the outputs of the file.",
        *(f"absent: {missing['engine']} ({missing['reason']})" for missing in report.absent),
    ]
    if not report.operator_library:
        lines.append("This build has no operator library: equibit runs the file as stock onnxruntime does.")
    return "\n".join(lines)


def _row(result: EngineResult, base: float | None) -> tuple[str, ...]:
    return (
        result.engine,
        *(f"{value:.3f}" for value in (result.median_ms, result.p10_ms, result.p90_ms)),
        "-" if base is None else f"{base / result.median_ms:.2f}x",
        f"{result.load_ms:.0f}",
        f"{result.cold_ms:.0f} ms",
        f"{result.peak_rss_mb:.0f} MB ({result.import_rss_mb:.0f})",
        size(result.file_bytes),
        f"{result.error:.1e}",
    )


BENCH = Verb(
    "Times one file in our runtime, in stock onnxruntime, and its dense float and int8 twins, made from the file, in "
    "onnxruntime and, where it is installed, OpenVINO. Each engine has its own process; they take turns within one "
    "measurement, on seeded random inputs.",
    _add,
    _run,
)
