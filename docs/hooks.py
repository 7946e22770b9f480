"""What MkDocs runs while it builds: fills the page of the command line with what `--help` prints."""

import contextlib
import io
import os
from typing import Any

from equibit.cli import main
from equibit.cli.verbs import VERBS

PAGE, MARKER = "reference/command-line.md", "<!-- help of every verb -->"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Puts the help of `equibit` and of each verb in the place of the marker."""
    if page.file.src_uri != PAGE:
        return markdown
    assert MARKER in markdown, f"{PAGE} lacks {MARKER}"
    os.environ["COLUMNS"] = "90"  # how argparse learns the width
    return markdown.replace(MARKER, "\n".join(_section(words) for words in ([], *([verb] for verb in VERBS))))


def _section(words: list[str]) -> str:
    """A heading, and the help as the terminal shows it."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return f"## {' '.join(['equibit', *words])}\n\n```text\n{shown.getvalue().strip()}\n```\n"
