"""What a verb of the command line is."""

from collections.abc import Callable
from dataclasses import dataclass

from jsonargparse import ArgumentParser, Namespace


@dataclass(frozen=True)
class Verb:
    """One verb, as the module that does its work defines it.

    Attributes:
        description: What `equibit VERB --help` says above the arguments.
        add: Adds the arguments; sees the words that follow the verb on the command line.
        run: Does the work and returns the exit code.
    """

    description: str
    add: Callable[[ArgumentParser, list[str]], None]
    run: Callable[[Namespace], int]


def add_json(parser: ArgumentParser) -> None:
    """The option of every reading verb."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
