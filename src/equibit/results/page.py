"""RESULTS.md, from the template of that name."""

import os
import re
from pathlib import Path

import jinja2

from equibit.files import write_text
from equibit.results import published, speed
from equibit.results.collect import FIGURES, Collection


def write(found: Collection, records: Path, page: Path) -> None:
    """Writes the page.

    Args:
        found: What `collect(records)` returned.
        records: The folder of records.
        page: The Markdown file.

    Raises:
        FileError: It cannot be written.
    """
    write_text(page, render(found, records, page.parent))


def render(found: Collection, records: Path, beside: Path) -> str:
    """The page as text; the same records give the same text.

    Args:
        found: What `collect(records)` returned.
        records: The folder of records.
        beside: The folder of the page, from which its links start.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("equibit.results", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown, of our own records
    )
    within = {"within": lambda folder: folder.relative_to(records).as_posix()}
    environment.filters |= {"cell": _cell, "anchor": _anchor, **within}
    link = Path(os.path.relpath(records, beside)).as_posix()
    text = environment.get_template("RESULTS.md.j2").render(
        vars(found),
        evidence=published.evidence(),
        unverified=published.UNVERIFIED,
        engines=speed.engines_of(found.networks),
        speed=speed,
        records=link,
        pictures=f"{link}/{FIGURES}",
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _cell(value: object) -> str:
    """Text that does not end its cell of a table."""
    return str(value).replace("|", "\\|").replace("\n", " ")


def _anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
