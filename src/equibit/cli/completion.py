"""`equibit completion`: a script with which a shell completes verbs, options and names."""

from argparse import Action
from collections.abc import Callable, Iterable, Mapping

import shtab
from jsonargparse import ArgumentParser, Namespace

from equibit import activations, convert, data, methods, models, recipes
from equibit.cli.main import make_parser
from equibit.cli.verb import Verb
from equibit.cli.verbs import VERBS

# What completes an argument, by its name; every other positional argument is a file or a folder.
_NAMES: Mapping[str, Callable[[], Iterable[str]]] = {
    "recipe": recipes.names,
    "names": data.names,
    "model.name": models.list,
    "data.name": data.names,
    "data.augment": data.kinds,
    "method": methods.list,
    "activation": lambda: activations.REGISTRY,
    "skip": lambda: convert.POLICIES,
}


def _add(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help="the shell that shall complete")


def _run(args: Namespace) -> int:
    # --help loads every verb's arguments, those of `train` too, which otherwise are those of the recipe it is given.
    parser = make_parser(["--help"], VERBS)
    verbs = next(action for action in parser._actions if action.dest == "verb")
    for own in dict(verbs.choices or {}).values():
        for action in own._actions:
            _describe(action)
    print(parser.get_completion_script(f"shtab-{args.shell}"))
    return 0


def _describe(action: Action) -> None:
    """Tells shtab what the values of an argument may be."""
    if action.dest in _NAMES:
        action.choices = sorted(_NAMES[action.dest]())
    elif not action.option_strings and not action.choices:
        action.complete = shtab.FILE  # type: ignore[attr-defined]


COMPLETION = Verb(
    "Prints a script. bash: equibit completion bash > ~/.local/share/bash-completion/completions/equibit. "
    "zsh: equibit completion zsh > DIR/_equibit, where DIR is in $fpath. Other shells: source it.",
    _add,
    _run,
)
