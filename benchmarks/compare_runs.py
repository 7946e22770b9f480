"""Compares finished runs of one experiment, exports each, and measures the files on the whole test set.

    python benchmarks/compare_runs.py RUN... --out results/NAME

Writes each run's config, metrics and summary below the folder, and table.json and table.txt: accuracy (final and best;
n, mean, spread), share of +1 of every filter, entropy, last flip rate, size of the exported file beside what `summary`
said, accuracy of the file under stock onnxruntime, and its agreement with the network.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import equibit as eb
from equibit import data, training
from equibit.cli.export import write_onnx
from equibit.results.groups import spread
from equibit.tables import render
from equibit.training import Run

KEPT = ("config.yaml", "metrics.jsonl", "summary.json")


def examine(run: Run, folder: Path) -> dict[str, Any]:
    assert run.summary is not None, f"{run.path} is not finished"
    dataset, pixels = data.load(run.recipe.data.name), run.recipe.data
    inputs = data.normalize(dataset.test_images, pixels.mean or (), pixels.std or ())
    path = folder / f"{run.path.name}.onnx"
    written = write_onnx(run, path)
    check = eb.verify_onnx(run.model, path, inputs)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = [session.run(None, {"input": batch.numpy()})[0] for batch in inputs.split(500)]
    accuracy = float(np.mean(np.concatenate(outputs).argmax(axis=1) == dataset.test_labels.numpy()))
    last = run.metrics[-1]
    return {
        "run": run.path.name,
        "method": run.summary["method"],
        **{k: run.summary[k] for k in ("seed", "epochs", "final_accuracy", "best_accuracy", "best_epoch", "test_n")},
        **ratios(run),
        "bit_entropy": last["bit_entropy"],
        "flip_rate_first": run.metrics[0]["flip_rate"],
        "flip_rate_last": last["flip_rate"],
        "seconds": run.summary["seconds"],
        "promised_bytes": eb.summary(run.model, (1, *dataset.in_shape)).onnx_bytes,
        "onnx_bytes": written,
        "onnxruntime_accuracy": accuracy,
        "onnxruntime_version": onnxruntime.__version__,
        "agreement": check.agreement,
        "max_abs_error": check.max_abs_error,
        "verified": check.ok,
    }


def ratios(run: Run) -> dict[str, float | None]:
    """Lowest and highest share of +1 over all filters."""
    if run.recipe.method is None:
        return {"ratio_lowest": None, "ratio_highest": None}
    shares = torch.cat([eb.analysis.bit_ratio(w) for w in eb.binary_weights(run.model).values()])
    return {"ratio_lowest": float(shares.min()), "ratio_highest": float(shares.max())}


def by_method(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        entry: dict[str, Any] = {"method": method, "n": len(own), "test_n": own[0]["test_n"]}
        for key in ("final_accuracy", "best_accuracy"):
            entry[key] = vars(spread([row[key] for row in own]))
        found.append(entry)
    return found


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def mean_and_range(entry: dict[str, Any]) -> str:
    return f"{percent(entry['mean'])} ({percent(entry['lowest'])} to {percent(entry['highest'])})"


def table(rows: list[dict[str, Any]], methods: list[dict[str, Any]]) -> str:
    means = [
        (m["method"], m["n"], mean_and_range(m["final_accuracy"]), mean_and_range(m["best_accuracy"])) for m in methods
    ]
    files = [
        (
            row["run"],
            percent(row["final_accuracy"]),
            f"{percent(row['best_accuracy'])} ({row['best_epoch']})",
            "-" if row["ratio_lowest"] is None else f"{row['ratio_lowest']:.3f} to {row['ratio_highest']:.3f}",
            "-" if row["bit_entropy"] is None else f"{row['bit_entropy']:.4f}",
            percent(row["flip_rate_last"]),
            f"{row['onnx_bytes']:,}",
            f"{row['promised_bytes']:,}",
            percent(row["onnxruntime_accuracy"]),
            percent(row["agreement"]),
        )
        for row in rows
    ]
    columns = ("run", "final", "best (epoch)", "+1 per filter", "entropy", "flips, last", "file bytes", "summary said",
               "onnxruntime", "agreement")  # fmt: skip
    heading = f"All {rows[0]['test_n']:,} test images. Mean and range over n runs."
    return "\n\n".join(
        (
            heading,
            render(("method", "n", "final accuracy", "best accuracy"), means, width=160),
            render(columns, files, width=200),
        )
    )


def epochs(runs: list[Run]) -> str:
    """Accuracy, entropy and flip rate of every epoch."""
    rows = [
        (
            run.path.name,
            m["epoch"],
            percent(m["test_accuracy"]),
            "-" if m["bit_entropy"] is None else f"{m['bit_entropy']:.4f}",
            percent(m["flip_rate"]),
            f"{m['seconds']:.0f} s",
        )
        for run in runs
        for m in run.metrics
    ]
    return render(("run", "epoch", "test accuracy", "entropy", "flips", "time"), rows, width=160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    rows, runs = [], [training.load_run(path) for path in arguments.runs]
    for run in runs:
        path = run.path
        kept = arguments.out / path.name
        kept.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            shutil.copyfile(path / name, kept / name)
        with tempfile.TemporaryDirectory() as folder:
            rows.append(examine(run, Path(folder)))
    methods = by_method(rows)
    (arguments.out / "table.json").write_text(json.dumps({"methods": methods, "runs": rows}, indent=2) + "\n")
    text = f"{table(rows, methods)}\n\n{epochs(runs)}"
    (arguments.out / "table.txt").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
