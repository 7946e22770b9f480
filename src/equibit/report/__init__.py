"""One self-contained HTML page about a run: what it learned, what its bits are, what it confuses, what it weighs."""

from equibit.report.facts import Facts, gather
from equibit.report.page import render

__all__ = ["Facts", "gather", "render"]
