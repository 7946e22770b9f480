"""Plain-text tables for reports and summaries."""

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table


def render(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", width: int = 120) -> str:
    """A text table; columns whose cells are numbers are right-aligned.

    Args:
        columns: Headings.
        rows: Cells; each is shown by `str`.
        title: A line above the table.
        width: Longest line in characters.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        numeric = all(row[i][:1].isdigit() or row[i] in ("", "-") for row in cells)
        table.add_column(column, justify="right" if cells and numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=width, no_color=True, highlight=False, markup=False)
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in str(text).splitlines()).strip("\n")


def size(count: float) -> str:
    """Bytes for people: 1.4 MB (decimal units)."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
