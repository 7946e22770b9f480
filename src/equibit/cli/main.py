"""Entry point: verbs, errors and exit codes."""

import difflib
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import jsonargparse

import equibit
from equibit.cli import demo, evaluate, export, listings, predict, summary, train
from equibit.cli.output import note
from equibit.cli.verb import Verb
from equibit.errors import EquibitError, StateError, unknown

VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        demo.VERB,
        train.VERB,
        evaluate.VERB,
        summary.VERB,
        export.EXPORT,
        export.VERIFY,
        predict.VERB,
        listings.METHODS,
        listings.MODELS,
        listings.RECIPES,
        listings.DATA,
    )
}


class UsageError(Exception):
    """The words on the command line cannot be parsed."""


class _Parser(jsonargparse.ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises instead of printing the usage and leaving."""
        raise UsageError(_hint(" ".join(message.split()), self))


def _hint(message: str, parser: Any) -> str:
    """Adds the nearest option to a complaint about an unknown one."""
    word = message.rpartition("unrecognized arguments: ")[2].split("=")[0].split(" ")[0]
    if "unrecognized arguments" not in message or not word.startswith("-"):
        return message
    known = [option for action in parser._actions for option in action.option_strings]
    near = difflib.get_close_matches(word, known, n=1)
    return f"{message}. Did you mean {near[0]}?" if near else f"{message}. See --help."


def _parser(words: list[str]) -> _Parser:
    parser = _Parser(
        prog="equibit",
        description="Train, explain and deploy 1-bit neural networks.",
        version=equibit.__version__,
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    subcommands = parser.add_subcommands(dest="verb", title="verbs", metavar="VERB")
    for verb in VERBS.values():
        own = _Parser(description=verb.description, allow_abbrev=False)
        verb.add(own, words[1:] if words[0] == verb.name else [])
        subcommands.add_subcommand(verb.name, own, help=verb.help)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 (failure) or 2 (bad input)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    warnings.showwarning = _show_warning
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        note("equibit: stopped")
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has left; python would complain at exit
        return 0
    except (EquibitError, UsageError) as error:
        if debug:
            traceback.print_exc()
        note(f"equibit: {error}")
        return 1 if isinstance(error, StateError) else 2
    except Exception as error:
        if debug:
            traceback.print_exc()
        note(f"equibit: {type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)")
        return 1


def _dispatch(words: list[str]) -> int:
    words = words or ["--help"]
    if words[0] not in VERBS and not words[0].startswith("-"):
        raise unknown("verb", words[0], VERBS)
    arguments = _parser(words).parse_args(words)
    return VERBS[arguments.verb].run(arguments[arguments.verb])


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    note(f"equibit: warning: {message}")
