"""`equibit export` and `equibit verify`."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor

from equibit import data
from equibit.cli import output
from equibit.cli.evaluate import score_file
from equibit.cli.runs import open_run, use_data
from equibit.cli.verb import Verb, add_json
from equibit.export import export_onnx, verify_onnx
from equibit.tables import render, size
from equibit.training import Run

_FOLDER_IMAGES = 512  # that `verify` compares of an image folder
_CALIBRATION = 512  # images that the ranges of 8-bit activations are taken from


def _add_export(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("run", help="a run folder")
    parser.add_argument("-o", "--out", required=True, help="the .onnx file to write")
    parser.add_argument("--weights", choices=["final", "best"], default="final", help="which weights of the run")
    parser.add_argument(
        "--activations",
        choices=["float", "int8"],
        default="float",
        help=f"int8 rounds what 1-bit layers take to 8 bits, calibrated on {_CALIBRATION} training images",
    )
    parser.add_argument(
        "--float-layers",
        choices=["float", "int8"],
        default="float",
        help="int8 writes the layers that are not binary, such as first and last, with 8-bit weights and inputs",
    )
    parser.add_argument("--data", help="folder of the data sets, instead of EQUIBIT_DATA; int8 needs the data")
    add_json(parser)


def write_onnx(run: Run, path: Path, **rounding: Any) -> int:
    """Exports a run with the metadata that `eval` and `predict` need; returns the bytes written.

    `rounding` are the arguments `activations`, `float_layers` and `calibration` of `export_onnx`.
    """
    shape, pixels = run.recipe.model.in_shape, run.recipe.data
    assert shape is not None  # a run's config is complete
    metadata = {
        "dataset": pixels.name,
        "classes": list(data.classes(pixels.name, **pixels.options)),
        "mean": list(pixels.mean or ()),
        "std": list(pixels.std or ()),
        "recipe": run.recipe.name,
    }
    return export_onnx(run.model, path, torch.zeros(1, *shape), metadata=metadata, **rounding)


def _run_export(args: Namespace) -> int:
    run, path, root = open_run(args.run, args.weights), Path(args.out), use_data(args.data)
    rounding = {"activations": args.activations, "float_layers": args.float_layers}
    rounded = "int8" in rounding.values()
    calibration = _calibration(run, root) if rounded else None
    found: dict[str, Any] = {"bytes": write_onnx(run, path, **rounding, calibration=calibration)}
    text = f"{path}: {size(found['bytes'])} ({found['bytes']:,} bytes). "
    if rounded:
        found |= _loss(run, path, root)
        text += (
            f"Accuracy {output.percent(found['accuracy'])} on all {found['n']:,} test images; without rounding "
            f"{output.percent(found['float_accuracy'])}. "
        )
    output.result(f"{text}Next: equibit verify {args.run} {path}", found, as_json=args.json)
    return 0


def _calibration(run: Run, root: Path | None) -> Tensor:
    """Training images as the network takes them, drawn over the whole set."""
    pixels = run.recipe.data
    train = data.load(pixels.name, root=root, **pixels.options).train
    index = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:_CALIBRATION]
    images, _ = next(train.batches([index]))
    return data.normalize(images, pixels.mean or (), pixels.std or ())


def _loss(run: Run, path: Path, root: Path | None) -> dict[str, Any]:
    """Accuracy of the file, and of the same with nothing rounded."""
    with tempfile.TemporaryDirectory(prefix="equibit-export-") as folder:
        exact = Path(folder) / "float.onnx"
        write_onnx(run, exact)
        float_accuracy = score_file(exact, root)["accuracy"]
    scores = score_file(path, root)
    return {"accuracy": scores["accuracy"], "float_accuracy": float_accuracy, "n": scores["n"]}


def _add_verify(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("run", help="a run folder")
    parser.add_argument("file", help="the .onnx file exported from it")
    parser.add_argument("--weights", choices=["final", "best"], default="final", help="which weights of the run")
    parser.add_argument("--data", help="folder of the data sets, instead of EQUIBIT_DATA")
    add_json(parser)


def _run_verify(args: Namespace) -> int:
    run = open_run(args.run, args.weights)
    dataset = data.load(run.recipe.data.name, root=use_data(args.data), **run.recipe.data.options)
    images, labels = _test_images(dataset)
    inputs = data.normalize(images, run.recipe.data.mean or (), run.recipe.data.std or ())
    check = verify_onnx(run.model, args.file, inputs, labels)
    rows = [(c.name, "equal" if c.bits_equal else "DIFFERENT", f"{c.max_abs_error:.2e}") for c in check.layers]
    verdict = "ok" if check.ok else "NOT the model"
    n, whole = check.n, len(dataset.test)
    rounds = check.ok and check.max_abs_error > check.tolerance
    reason = "the file rounds activations or takes signs" if rounds else f"allowed {check.tolerance:.2e}"
    scored = f"all {n:,} test images" if n == whole else f"the first {n:,} of {whole:,} test images"
    text = (f"{render(('layer', 'bits', 'largest error'), rows)}\n" if rows else "") + (
        f"{args.file}: {verdict}. The same prediction on {output.percent(check.agreement)} of {scored}; "
        f"largest difference of an output {check.max_abs_error:.2e} ({reason}); accuracy "
        f"{output.percent(check.accuracy)}, of the run {output.percent(check.model_accuracy)}"
    )
    output.result(text, check.to_dict(), as_json=args.json)
    return 0 if check.ok else 1


def _test_images(dataset: data.Dataset) -> tuple[Tensor, Tensor]:
    """The test images and their labels; of a data set that is never whole in memory, the first of them."""
    if isinstance(dataset.test, data.TensorSplit):
        return dataset.test_images, dataset.test_labels
    batch = data.sequential(min(len(dataset.test), _FOLDER_IMAGES), _FOLDER_IMAGES)
    return next(dataset.test.batches(batch))


EXPORT = Verb(
    "Writes a run as an ONNX file with 1-bit weights, batch norm, residual sums and activations inside its layers. "
    "Stock onnxruntime runs it; the accuracy that 8 bits cost, where they are asked for, is measured on the test set.",
    _add_export,
    _run_export,
)
VERIFY = Verb(
    "Compares bits and outputs of every binary or 8-bit layer, and predictions and accuracy on the whole test set (of "
    f"an image folder on its first {_FOLDER_IMAGES} images). Exit code 1 if they differ.",
    _add_verify,
    _run_verify,
)
