"""`equibit demo`: the main job on the embedded digits, from float network to a verified 1-bit file."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentParser, Namespace

from equibit import analysis, convert, data, packed, recipes, training
from equibit.classifier import Classifier
from equibit.cli import output
from equibit.cli.export import write_onnx
from equibit.cli.verb import Verb
from equibit.errors import StateError
from equibit.export import verify_onnx
from equibit.figures import demo as picture
from equibit.files import write_text
from equibit.tables import render, size
from equibit.training import Run, record

NETWORKS = {
    "float": "digits-digits_net-float",
    "sign": "digits-digits_net-sign-1w32a",
    "bi_half": "digits-digits_net-bi_half-1w32a",
}


def _add(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("--out", default="demo", help="folder for everything the demo writes")
    parser.add_argument("--epochs", type=int, help="epochs of each training, instead of the recipe's")


def _run(args: Namespace) -> int:
    start, out = time.perf_counter(), Path(args.out)
    torch.set_num_threads(1)  # so small a network gains nothing from more, and loses much where a core is busy
    dataset = data.load("digits")
    output.note(
        f"digits: {len(dataset.train_images):,} training and {len(dataset.test_images)} test images of 8x8 pixels. "
        "One network, trained three times: float weights, sign(weight), and bi-half (equal bits)."
    )
    networks = [_examine(name, run, out, dataset) for name, run in _train_all(out, args.epochs).items()]
    record_ = {
        "networks": networks,
        "test_n": len(dataset.test_images),
        "seconds": time.perf_counter() - start,
        "hardware": record.hardware("cpu"),
        "versions": record.versions(),
        "commit": record.source_commit(),
    }
    write_text(out / "demo.json", json.dumps(record_, indent=2) + "\n")
    image = picture.draw(out)
    print(_report(networks, out, image, time.perf_counter() - start))
    return 0


def _train_all(out: Path, epochs: int | None) -> dict[str, Run]:
    """Trains, or goes on with, the three networks below `out`/runs."""
    runs = {}
    with output.progress() as bar:
        for name, recipe_name in NETWORKS.items():
            recipe = recipes.load(recipe_name)
            if epochs is not None:
                recipe = recipes.override(recipe, {"train.epochs": epochs})
            folder = out / "runs" / recipe_name
            follow = output.EpochReport(f"{name:8}", recipe.train.epochs, bar)
            training.train(recipe, folder, resume=True, on_epoch=follow)
            runs[name] = training.load_run(folder)
    return runs


def _examine(name: str, run: Run, out: Path, dataset: data.Dataset) -> dict[str, Any]:
    """Packs, exports and verifies one network, and measures what came out."""
    assert run.summary is not None
    shape, pixels = (1, *dataset.in_shape), run.recipe.data
    promised, path = analysis.summary(run.model, shape), out / f"{name}.onnx"
    inputs = data.normalize(dataset.test_images, pixels.mean or (), pixels.std or ())
    written = write_onnx(run, path)
    check = verify_onnx(run.model, path, inputs)
    if not check.ok:
        raise StateError(f"{path} does not compute what the trained network computes: {check}.")
    predictions = Classifier(path).logits(dataset.test_images.numpy()).argmax(axis=1)
    return {
        "name": name,
        "run": str(run.path.relative_to(out)),
        "epochs": len(run.metrics),
        "final_accuracy": run.summary["final_accuracy"],
        "best_accuracy": run.summary["best_accuracy"],
        "best_epoch": run.summary["best_epoch"],
        "train_seconds": run.summary["seconds"],
        **_bits(run),
        "float_bytes": promised.float_bytes,
        "promised_onnx_bytes": promised.onnx_bytes,
        "onnx_file": path.name,
        "onnx_bytes": written,
        "onnx_accuracy": float(np.mean(predictions == dataset.test_labels.numpy())),
        "agreement": check.agreement,
        "max_abs_error": check.max_abs_error,
        "packed_file": _save_packed(name, run, out),
    }


def _bits(run: Run) -> dict[str, Any]:
    """Share of +1, entropy and last flip rate of a binary network; None for a float one."""
    keys = ("ratio_lowest", "ratio_highest", "entropy", "flip_rate")
    if run.recipe.method is None:
        return dict.fromkeys(keys)
    weights = convert.binary_weights(run.model).values()
    ratios = torch.cat([analysis.bit_ratio(w) for w in weights])
    last = run.metrics[-1]
    return dict(
        zip(keys, (float(ratios.min()), float(ratios.max()), last["bit_entropy"], last["flip_rate"]), strict=True)
    )


def _save_packed(name: str, run: Run, out: Path) -> str | None:
    if run.recipe.method is None:
        return None
    packed.save_packed(packed.pack(run.model), out / f"{name}.safetensors")
    return f"{name}.safetensors"


def _report(networks: list[dict[str, Any]], out: Path, image: Path, seconds: float) -> str:
    rows = [
        (
            net["name"],
            output.percent(net["final_accuracy"]),
            f"{output.percent(net['best_accuracy'])} ({net['best_epoch']})",
            _range(net),
            "-" if net["entropy"] is None else f"{net['entropy']:.3f}",
            output.percent(net["flip_rate"]),
            size(net["onnx_bytes"]),
            size(net["promised_onnx_bytes"]),
            output.percent(net["onnx_accuracy"]),
        )
        for net in networks
    ]
    columns = (
        "weights",
        "final",
        "best (epoch)",
        "+1 per filter",
        "entropy",
        "flips",
        "file",
        "promised",
        "onnxruntime",
    )
    first, last = networks[0], networks[-1]
    return (
        f"{render(columns, rows)}\n"
        f"Every file predicts what its network predicts on all test images. The bi_half file is "
        f"{first['onnx_bytes'] / last['onnx_bytes']:.1f} times smaller than the float file.\n"
        f"{seconds:.0f} s in all. Picture: {image}   Files and records: {out}\n"
        f"Next: equibit summary {out / last['onnx_file']}   equibit recipes   equibit train --help"
    )


def _range(net: dict[str, Any]) -> str:
    if net["ratio_lowest"] is None:
        return "-"
    return f"{100 * net['ratio_lowest']:.1f} to {100 * net['ratio_highest']:.1f} %"


DEMO = Verb(
    "Trains one small network with float, sign and bi-half weights on the digits that come with scikit-learn, compares "
    "them, draws their bits, packs, exports and verifies them. Interrupted, it goes on where it was.",
    _add,
    _run,
)
