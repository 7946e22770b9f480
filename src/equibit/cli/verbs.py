"""The table of verbs. A verb is loaded when it is used: many take torch, and so seconds, to load."""

import importlib
from dataclasses import dataclass

from equibit.cli.verb import Verb


@dataclass(frozen=True)
class Entry:
    """What is known of a verb without loading it.

    Attributes:
        name: As typed.
        help: One line for `equibit --help`.
        module: The module of `equibit.cli` that defines the verb, under its name in capitals.
        interrupted: What to do after Ctrl-C.
    """

    name: str
    help: str
    module: str
    interrupted: str = "run the command again"

    def load(self) -> Verb:
        """The verb; imports its module."""
        module = importlib.import_module(f"equibit.cli.{self.module}")
        verb: Verb = getattr(module, self.name.upper().replace("-", "_"))
        return verb


VERBS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "demo",
            "train, compare, draw, pack, export and verify, on the embedded digits",
            "demo",
            "the same command goes on where it was",
        ),
        Entry(
            "train",
            "train a recipe into a run folder",
            "train",
            "every finished epoch is kept; the same command with --resume goes on",
        ),
        Entry(
            "run-list",
            "train a list of recipes within a time window",
            "run_list",
            "every finished epoch is kept; the same command goes on",
        ),
        Entry(
            "sweep",
            "train a recipe over a grid of values and seeds",
            "sweep",
            "every finished epoch is kept; the same command goes on",
        ),
        Entry("eval", "accuracy of a run or an exported file over the whole test set", "evaluate"),
        Entry("summary", "bits, bytes and multiply-accumulates of a run, recipe or file", "summary"),
        Entry("analyze", "share of +1, entropy and flips of a run, layer by layer and through training", "analyze"),
        Entry(
            "figure",
            "draw a figure of the papers from recorded runs, or train them first",
            "figure",
            "every finished epoch is kept; the same command goes on",
        ),
        Entry("report", "one self-contained HTML page about a run", "report"),
        Entry("results", "one page of all recorded runs beside what the papers print", "results"),
        Entry("export", "write a run as one 1-bit ONNX file", "export"),
        Entry("verify", "compare an exported file with its run, layer by layer", "export"),
        Entry("bench", "time an exported file beside other engines and its dense twins", "bench"),
        Entry("predict", "classes and probabilities of image files", "predict"),
        Entry("methods", "the binarisation methods and their arguments", "listings"),
        Entry("models", "the networks and their options", "listings"),
        Entry("recipes", "the recipes that `equibit train` knows by name", "listings"),
        Entry("data", "list, fetch or check the data sets", "listings"),
        Entry("completion", "a script with which bash, zsh, tcsh and others complete commands", "completion"),
        Entry("version", "versions, kernel level and hardware, for a bug report", "version"),
    )
}
