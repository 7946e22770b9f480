"""The numbers that papers print and our own comparisons, as published.yaml and comparisons.yaml hold them."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from equibit import yaml_format

UNVERIFIED = "U"


@dataclass(frozen=True)
class Row:
    """One cell of a paper's table.

    Attributes:
        row: Network and method.
        evidence: A letter of `evidence()`.
        recipe: The shipped recipe that repeats it, without `-short`; None if nothing here does.
        top1: Percent as printed, None where no number is known to us; so is `top5`.
        spread: What the source gives after a plus-minus sign.
        note: What else to know; always there without a recipe.
    """

    row: str
    evidence: str
    recipe: str | None = None
    top1: str | None = None
    top5: str | None = None
    spread: str | None = None
    note: str = ""

    @property
    def recipes(self) -> tuple[str, ...]:
        """Names of the recipes whose runs count: the full one and its short twin."""
        return () if self.recipe is None else (self.recipe, f"{self.recipe}-short")

    @property
    def printed(self) -> str:
        """The published number for people; says so where it is not verified."""
        if self.top1 is None:
            return "unverified"
        text = self.top1 + (f" ± {self.spread}" if self.spread else "") + (f" / {self.top5}" if self.top5 else "")
        return f"{text} (unverified)" if self.evidence == UNVERIFIED else text


@dataclass(frozen=True)
class Table:
    """A table of a paper, or the part of one that shares a source."""

    table: str
    source: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Count:
    """A number that a paper prints and that `equibit figure 6` repeats exactly, under `key` of its record."""

    row: str
    key: str
    value: int
    evidence: str


@dataclass(frozen=True)
class Paper:
    """A paper and its tables."""

    paper: str
    reference: str
    tables: tuple[Table, ...]
    counts: tuple[Count, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Recipes that differ in the method only; `key` names the picture."""

    key: str
    title: str
    about: str
    recipes: tuple[str, ...]


@functools.cache
def papers() -> tuple[Paper, ...]:
    """Every paper whose tables we compare with."""
    return tuple(_paper(values) for values in _content("published.yaml")["papers"])


@functools.cache
def evidence() -> dict[str, str]:
    """What the letters of `Row.evidence` mean."""
    return dict(_content("published.yaml")["evidence"])


@functools.cache
def comparisons() -> tuple[Comparison, ...]:
    """Our own comparisons."""
    return tuple(Comparison(**{**c, "recipes": tuple(c["recipes"])}) for c in _content("comparisons.yaml"))


def _content(name: str) -> Any:
    return yaml_format.load((resources.files("equibit.results") / name).read_text(encoding="utf-8"))


def _paper(values: Mapping[str, Any]) -> Paper:
    return Paper(
        paper=values["paper"],
        reference=values["reference"],
        tables=tuple(_table(table) for table in values["tables"]),
        counts=tuple(Count(**count) for count in values.get("counts", ())),
    )


def _table(values: Mapping[str, Any]) -> Table:
    rows = tuple(Row(**{"evidence": values["evidence"], **row}) for row in values["rows"])
    return Table(values["table"], values["source"], rows)
