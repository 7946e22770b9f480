"""`equibit summary`: bits, bytes and multiply-accumulates."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from equibit import analysis, data, recipes
from equibit.analysis import Summary
from equibit.cli import output
from equibit.cli.runs import is_onnx, open_run
from equibit.cli.verb import Verb, add_json
from equibit.export import summarize_onnx
from equibit.recipes import Recipe


def _add(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("target", help="a run folder, a recipe (name or YAML file), or an exported .onnx file")
    add_json(parser)


def _run(args: Namespace) -> int:
    info = _summarize(args.target)
    output.result(info.table(), info.to_dict(), as_json=args.json)
    return 0


def _summarize(target: str) -> Summary:
    if is_onnx(target):
        return summarize_onnx(target)
    if Path(target).is_dir():
        run = open_run(target, "final")
        return analysis.summary(run.model, (1, *_in_shape(run.recipe)))
    recipe = recipes.load(target)
    return analysis.summary(recipes.build(recipe), (1, *_in_shape(recipe)))


def _in_shape(recipe: Recipe) -> tuple[int, int, int]:
    return recipe.model.in_shape or data.in_shape(recipe.data.name, **recipe.data.options)


SUMMARY = Verb(
    "Layer by layer: shape, method, share of +1, bytes as float32 and packed, multiply-accumulates (MACs).",
    _add,
    _run,
)
