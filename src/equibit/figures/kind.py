"""What a figure is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from equibit.figures.plan import Found, Panel


@dataclass(frozen=True)
class Drawing:
    """A composed figure.

    Attributes:
        figure: The picture.
        rows: Every number in it, for the CSV.
        facts: What it says in a few numbers, for the JSON.
        missing: What the runs do not hold, in words.
    """

    figure: Figure
    rows: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """One figure, as the module that draws it defines it.

    Attributes:
        name: As `equibit figure` is given it.
        title: What it shows, in a few words.
        caption: What there is to know besides, for the small print.
        panels: What it needs trained; the argument asks for the budget of --quick.
        compose: Draws what was found; never called without any run, unless the figure needs none.
    """

    name: str
    title: str
    caption: str
    panels: Callable[[bool], tuple[Panel, ...]]
    compose: Callable[[Sequence[Found]], Drawing]
