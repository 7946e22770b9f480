"""`equibit predict`: classes of image files."""

from typing import Any

import numpy as np
from jsonargparse import ArgumentParser, Namespace

from equibit.classifier import Classifier, probabilities
from equibit.cli import output
from equibit.cli.verb import Verb, add_json
from equibit.tables import render

_TOP = 5


def _add(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("file", help="an exported .onnx file")
    parser.add_argument("images", nargs="+", help="image files, resized to the network's input")
    parser.add_argument("--threads", type=int, default=1, help="threads of onnxruntime")
    add_json(parser)


def _run(args: Namespace) -> int:
    classifier = Classifier(args.file, threads=args.threads)
    images = np.stack([classifier.read_image(path) for path in args.images])
    found = [
        _describe(path, row, classifier.classes)
        for path, row in zip(args.images, probabilities(classifier.logits(images)), strict=True)
    ]
    rows = [(f["file"], f["label"], output.percent(f["probability"]), _others(f)) for f in found]
    output.result(render(("image", "class", "probability", "next"), rows), found, as_json=args.json)
    return 0


def _describe(path: str, row: Any, classes: list[str]) -> dict[str, Any]:
    order = np.argsort(-row, kind="stable")[:_TOP]
    top = [{"label": classes[i], "probability": float(row[i])} for i in order]
    return {"file": path, "label": top[0]["label"], "probability": top[0]["probability"], "top": top}


def _others(found: dict[str, Any]) -> str:
    return ", ".join(f"{t['label']} {output.percent(t['probability'])}" for t in found["top"][1:3])


PREDICT = Verb(
    "Classifies image files with an exported .onnx file; the file itself says how pixels become inputs.",
    _add,
    _run,
)
