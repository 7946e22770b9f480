"""`equibit train`: one recipe into one run folder."""

from contextlib import nullcontext
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from equibit import recipes, training
from equibit.cli import output
from equibit.cli.verb import Verb, add_json
from equibit.tables import render, size


def _add(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("--out", help="run folder (default: runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder")
    add_json(parser)
    add_recipe(parser, words)


def add_recipe(parser: ArgumentParser, words: list[str]) -> None:
    """A recipe, and its sections as options whose defaults are the recipe's own values."""
    parser.add_argument("recipe", help="a recipe by name (see `equibit recipes`) or a YAML file")
    recipe = _named_recipe(words)
    if recipe is not None or {"-h", "--help"} & set(words):
        recipes.add_arguments(parser, recipe)


def _named_recipe(words: list[str]) -> recipes.Recipe | None:
    """The recipe on the command line, found before parsing, because its values are the options' defaults."""
    named = next((word for word in words if not word.startswith("-")), None)
    return None if named is None else recipes.load(named)


def _run(args: Namespace) -> int:
    recipe = recipes.from_arguments(args, recipes.load(args.recipe))
    folder = Path(args.out or Path("runs") / recipe.name)
    training.keep_freed_memory()  # for this process, which does nothing else
    with output.progress() if training.is_first_process() else nullcontext() as bar:
        follow = output.EpochReport(recipe.name, recipe.train.epochs, bar)
        summary = training.train(recipe, folder, resume=args.resume, on_epoch=follow)
    if not training.is_first_process():
        return 0
    rows = [
        ("final accuracy", f"{output.percent(summary['final_accuracy'])} of all {summary['test_n']:,} test images"),
        ("best accuracy", f"{output.percent(summary['best_accuracy'])} (epoch {summary['best_epoch']})"),
        ("packed size", size(summary["packed_bytes"])),
        ("time", f"{summary['seconds']:.0f} s, {summary['epochs']} epochs"),
    ]
    text = f"{render(('', recipe.name), rows)}\n{folder}   Next: equibit export {folder} -o {recipe.name}.onnx"
    output.result(text, summary, as_json=args.json)
    return 0


TRAIN = Verb(
    "Trains a recipe; every value of it can be changed by an option, for example --train.epochs 3 --method.ratio 0.3. "
    "Stopped at any moment, it goes on with --resume to the same numbers.",
    _add,
    _run,
)
