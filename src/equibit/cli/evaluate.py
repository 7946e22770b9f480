"""`equibit eval`: accuracy over the whole test set."""

from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser, Namespace

from equibit import data
from equibit.classifier import Classifier, cross_entropy
from equibit.cli import output
from equibit.cli.runs import is_onnx, open_run, use_data
from equibit.cli.verb import Verb, add_json
from equibit.errors import InputError
from equibit.training import evaluate

_BATCH = 256  # images in memory at a time


def _add(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("target", help="a run folder, or an exported .onnx file")
    parser.add_argument("--data", help="folder of the data sets, instead of EQUIBIT_DATA")
    parser.add_argument("--weights", choices=["final", "best"], default="final", help="which weights of a run")
    parser.add_argument("--threads", type=int, default=1, help="threads of onnxruntime")
    add_json(parser)


def _run(args: Namespace) -> int:
    on_file = is_onnx(args.target)
    scores = score_file(Path(args.target), use_data(args.data), args.threads) if on_file else _score_run(args)
    text = (
        f"{args.target}: accuracy {output.percent(scores['accuracy'])}, loss {scores['loss']:.4f} "
        f"over all {scores['n']:,} test images of {scores['dataset']}"
    )
    output.result(text, scores, as_json=args.json)
    return 0


def _score_run(args: Namespace) -> dict[str, Any]:
    run = open_run(args.target, args.weights)
    pixels = run.recipe.data
    dataset = data.load(pixels.name, root=use_data(args.data), **pixels.options)
    assert pixels.mean is not None  # a run's config is complete
    assert pixels.std is not None
    score = evaluate(run.model, dataset.test, pixels.mean, pixels.std)
    return {"accuracy": score.accuracy, "n": score.n, "loss": score.loss, "dataset": dataset.name}


def score_file(path: Path, root: Path | None, threads: int = 1) -> dict[str, Any]:
    """Accuracy, loss and number of images of an exported file on the whole test set it names; `root` holds the data."""
    classifier = Classifier(path, threads=threads)
    name = classifier.metadata.get("dataset")
    if name is None:
        raise InputError(f"{path} does not name its data set (metadata equibit.dataset), so it has no test set.")
    size = {"size": classifier.in_shape[1]} if "size" in data.entry(name).options else {}
    test = data.load(name, root=root, **size).test
    batches = test.batches(data.sequential(len(test), _BATCH))
    found = [(classifier.logits(images.numpy()), labels.numpy()) for images, labels in batches]
    logits, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return {
        "accuracy": float(np.mean(logits.argmax(axis=1) == labels)),
        "n": len(labels),
        "loss": cross_entropy(logits, labels),
        "dataset": name,
    }


EVAL = Verb(
    "Scores a run folder or an exported .onnx file on the whole test set of its data set.",
    _add,
    _run,
)
