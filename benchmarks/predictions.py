"""Predictions of trained networks on the whole test set: torch, our operators and stock onnxruntime.

    python benchmarks/predictions.py RUN... [--weights best] [--threads 1] [--out FILE]

Each finished run is exported as it was trained, 1W32A or 1W1A, and its file run with our operators and with stock
onnxruntime alone. Counted are the test images whose prediction (largest output) is not that of the trained network in
torch; of these the largest margin that torch's prediction had. Prints a table; --out writes everything as JSON.

A 1W1A network is asked twice in torch: as it was trained, with weights of +-scale, and with weights of +-1 whose sums
are scaled after. Those sums are whole numbers and exact, as in the file; the first ones are rounded, and where they
should be equal, as outputs of a binary classifier often are, rounding decides which is the largest.
"""

import argparse
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import equibit as eb
from equibit import data, kernels, runtime, training
from equibit.cli.export import write_onnx
from equibit.export.graph import our_nodes
from equibit.packed import PackedLayer, packed_layers
from equibit.tables import render
from equibit.training import Run, record

BATCH = 500
Array = NDArray[Any]


def outputs_of(compute: Callable[[Tensor], Any], inputs: Tensor) -> Array:
    """Of all inputs, some at a time."""
    return np.concatenate([np.asarray(compute(batch)) for batch in inputs.split(BATCH)])


def compared(found: Array, expected: Array, labels: Array) -> dict[str, Any]:
    """Outputs of a file beside torch's."""
    different = found.argmax(axis=1) != expected.argmax(axis=1)
    first, second = np.sort(expected, axis=1)[:, :-3:-1].T
    return {
        "different_predictions": int(different.sum()),
        "largest_margin": float((first - second)[different].max(initial=0.0)),
        "accuracy": float(np.mean(found.argmax(axis=1) == labels)),
        "max_abs_error": float(np.abs(found - expected).max()),
        "max_abs_output": float(np.abs(expected).max()),
    }


def with_exact_sums(model: nn.Module) -> nn.Module:
    """The model in torch's own operations, its binary layers with weights of -1, 0 and +1, scaled after the sum."""
    packed = eb.pack(model)
    for _, layer in packed_layers(packed):
        assert layer.bias is None, layer.spec.name
        assert layer.offset is None, layer.spec.name
        layer.forward = functools.partial(_scale_sums, layer)  # type: ignore[method-assign]
    return packed


def _scale_sums(layer: PackedLayer, x: Tensor) -> Tensor:
    y = layer.compute(layer.binarized(x), layer.binary().to(x.dtype))
    return y * layer.scale.reshape(-1, *[1] * (y.dim() - 2))


def examine(run: Run, folder: Path, threads: int) -> dict[str, Any]:
    """One run's file beside its network."""
    assert run.summary is not None, f"{run.path} is not finished"
    pixels, path = run.recipe.data, folder / "network.onnx"
    dataset = data.load(pixels.name, **pixels.options)
    inputs = data.normalize(dataset.test_images, pixels.mean or (), pixels.std or ())
    labels = dataset.test_labels.numpy()
    write_onnx(run, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    stock = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    own = runtime.InferenceSession(path, threads=threads)
    name = own.get_inputs()[0].name
    model = run.model.eval()
    expected = outputs_of(model, inputs)
    found = outputs_of(lambda x: own.run(None, {name: x.numpy()})[0], inputs)
    exact = outputs_of(with_exact_sums(model), inputs) if run.recipe.activation else None
    return {
        "run": run.path.name,
        "recipe": run.recipe.name,
        "method": run.summary["method"],
        "activation": (run.recipe.activation or {}).get("name"),
        "epochs": run.summary["epochs"],
        "seed": run.summary["seed"],
        "n": len(labels),
        "onnx_bytes": path.stat().st_size,
        "our_nodes": len(our_nodes(onnx.load(path))),
        "torch_accuracy": float(np.mean(expected.argmax(axis=1) == labels)),
        "equibit": compared(found, expected, labels),
        "equibit_beside_exact_sums": None if exact is None else compared(found, exact, labels),
        "onnxruntime": compared(outputs_of(lambda x: stock.run(None, {name: x.numpy()})[0], inputs), expected, labels),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Accuracies and different predictions."""
    cells = [
        (
            row["run"],
            f"{row['n']:,}",
            *(f"{100 * value:.2f} %" for value in (row["torch_accuracy"], row["equibit"]["accuracy"])),
            str(row["equibit"]["different_predictions"]),
            "-" if (exact := row["equibit_beside_exact_sums"]) is None else str(exact["different_predictions"]),
            str(row["onnxruntime"]["different_predictions"]),
            f"{row['equibit']['max_abs_error']:.1e} of {row['equibit']['max_abs_output']:.3g}",
        )
        for row in rows
    ]
    columns = (
        "run",
        "images",
        "torch",
        "our operators",
        "different",
        "from exact sums",
        "stock, different",
        "largest error",
    )
    return render(columns, cells, width=160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--weights", choices=["final", "best"], default="final")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for path in arguments.runs:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(examine(training.load_run(path, which=arguments.weights), Path(folder), arguments.threads))
    found = {
        "cpu": kernels.cpu_name(),
        "kernel": kernels.active(),
        "threads": arguments.threads,
        "weights": arguments.weights,
        "versions": record.versions() | {"onnxruntime": onnxruntime.__version__},
        "commit": record.source_commit(),
        "predictions": rows,
    }
    print(table(rows))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
