"""The table of figures. A figure is loaded when it is drawn: one of them takes scipy, which takes a second to load."""

import importlib

from equibit.errors import unknown
from equibit.figures.kind import Kind

_MODULES = {
    **{str(number): f"figure{number}" for number in range(1, 9)},
    "siman": "figure_siman",
    "gwt": "figure_gwt",
}
NAMES = tuple(_MODULES)


def get(name: str) -> Kind:
    """A figure by name.

    Raises:
        InputError: There is no such figure.
    """
    if name not in _MODULES:
        raise unknown("figure", name, NAMES)
    kind: Kind = importlib.import_module(f"equibit.figures.{_MODULES[name]}").FIGURE
    return kind
