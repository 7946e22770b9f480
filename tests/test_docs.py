"""The documentation keeps its word: its blocks are run, its site builds, its reference is complete.

What a block is for says its language. `python` is run, all blocks of a page in one namespace; a `text` block titled
`printed` is what the python block before it prints. `console` holds `$ equibit ...` commands, which are run, and what
they print, compared but for the numbers. `yaml` is a recipe, which is loaded. `...` stands for any text. A block titled
`needs PACKAGE` is run where that package is installed, one titled `not run by the tests` is only parsed; the reader
sees the titles.
"""

import ast
import doctest
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import equibit
from equibit.cli import main
from equibit.cli.main import make_parser
from equibit.cli.verbs import VERBS
from equibit.recipes.reading import from_yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r'^```(\w*)(?: title="([^"\n]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LANGUAGES = {"python", "console", "text", "yaml", "cpp"}
PRINTED, NEEDS, NOT_RUN = "printed", "needs ", "not run by the tests"
EXTRAS = ("lightning", "transformers")
README_LANGUAGES = {"", *LANGUAGES}  # its other commands need make
PUBLIC_PACKAGES = (
    "analysis", "bits", "data", "export", "kernels", "methods", "models", "packed", "recipes", "training"
)  # fmt: skip


class Block(NamedTuple):
    line: int
    language: str
    title: str
    text: str

    @property
    def runs(self):
        return self.title != NOT_RUN and (not self.needs or importlib.util.find_spec(self.needs) is not None)

    @property
    def needs(self):
        """The package that this block needs beyond our own dependencies."""
        return self.title.removeprefix(NEEDS) if self.title.startswith(NEEDS) else ""


def blocks(page):
    text = page.read_text(encoding="utf-8")
    return [Block(text[: m.start(3)].count("\n"), m[1], m[2] or "", m[3]) for m in BLOCK.finditer(text)]


PAGES = {str(p.relative_to(ROOT)): p for p in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))) if blocks(p)}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Every page starts in an empty folder, with the user's data sets out of sight."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQUIBIT_DATA", str(tmp_path / "data"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", PAGES)
def test_the_blocks_of_a_page_do_what_they_say(name, capsys):
    namespace, printed = {"__name__": "snippet"}, ""
    for block in blocks(PAGES[name]):
        where = f"{name}:{block.line}"
        if block.language == "python":
            code = compile("\n" * block.line + block.text, str(PAGES[name]), "exec")
            if block.runs:
                capsys.readouterr()
                with warnings.catch_warnings():
                    if block.needs:  # other libraries may warn about themselves
                        warnings.simplefilter("ignore")
                    exec(code, namespace)
                printed = capsys.readouterr().out
        elif block.language == "text" and block.title == PRINTED:
            assert_matches(printed, block.text, where)
        elif block.language == "console":
            run_console(block, where, capsys)
        elif block.language == "yaml" and block.runs:
            from_yaml(block.text, "snippet")


def run_console(block, where, capsys):
    """Each `$` line is a command, the lines after it what it prints."""
    assert block.text.startswith("$ "), where
    for part in block.text.removeprefix("$ ").split("\n$ "):
        command, _, expected = part.replace("\\\n", " ").partition("\n")
        words = shlex.split(command, comments=True)
        if block.runs:
            assert words[0] == "equibit", f"{where}: {command!r} would not be run"
            capsys.readouterr()
            code = main(words[1:])
            out, err = capsys.readouterr()
            assert code == 0, f"{where}: {err}"
            if expected.strip():
                assert_matches(without_numbers(out), without_numbers(expected), where)
        elif "equibit" in words[0] or "equibit.cli" in words:
            start = words.index("equibit.cli") if "equibit.cli" in words else 0
            parsed(words[start + 1 :])


def parsed(words):
    """The options of a command that is not run must exist."""
    if words[0] == "--version":
        return
    make_parser(words[1:], words[:1]).parse_args(words)


def without_numbers(text):
    """Accuracies, sizes and times differ between machines, and with them the width of a table."""
    return re.sub("─+", "─", re.sub(r"\d[\d,.]*(?:e[-+]\d+)?", "0", text))


def assert_matches(found, expected, where):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(expected, found, flags), f"{where} shows\n{expected}\nbut got\n{found}"


def test_no_block_escapes():
    found = {name: blocks(page) for name, page in PAGES.items()}
    for name, page in PAGES.items():
        fences = re.findall(r"^\s*(?:```|~~~)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(found[name]), f"{name} has a fence that is indented, or written in another way"
        allowed = README_LANGUAGES if name == "README.md" else LANGUAGES
        assert {b.language for b in found[name]} <= allowed, name
        for before, block in zip([None, *found[name]], found[name], strict=False):
            known = block.title in ("", PRINTED, NOT_RUN) or block.needs in EXTRAS
            assert known, f"{name}:{block.line} has the title {block.title!r}"
            follows = before is not None and before.language == "python" and not before.title
            assert block.title != PRINTED or follows, f"{name}:{block.line} follows no python that always runs"
    every = [block for page in found.values() for block in page]
    run = [b for b in every if b.runs and b.language in ("python", "console", "yaml")]
    assert len(PAGES) >= 8
    assert len(run) >= 50
    assert sum(b.title == PRINTED for b in every) >= 30
    assert sum(not b.runs for b in every) <= len(run) / 2


def test_a_wrong_block_is_caught(tmp_path, monkeypatch, capsys):
    wrong = {
        "python": "assert False",
        "console": "$ equibit recipes --jason",
        "yaml": "model: {name: lenet5}",
    }
    for language, text in wrong.items():
        page = tmp_path / "page.md"
        page.write_text(f"```{language}\n{text}\n```\n")
        monkeypatch.setitem(PAGES, "page.md", page)
        with pytest.raises((AssertionError, ValueError)):
            test_the_blocks_of_a_page_do_what_they_say("page.md", capsys)
    page.write_text('```python\nprint(1)\n```\n\n```text title="printed"\n2\n```\n')
    with pytest.raises(AssertionError, match="but got"):
        test_the_blocks_of_a_page_do_what_they_say("page.md", capsys)
    page.write_text(
        '```console title="not run by the tests"\n$ equibit train mnist-lenet5-float --train.epoch 3\n```\n'
    )
    with pytest.raises(Exception, match=r"train\.epoch"):
        test_the_blocks_of_a_page_do_what_they_say("page.md", capsys)


def test_the_site_is_whole(tmp_path):
    """Built without a warning: every page, every public name, every verb, and nothing from another server."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {p.relative_to(tmp_path / "site").as_posix(): p.read_text("utf-8") for p in tmp_path.rglob("*.html")}
    sources = [page.relative_to(DOCS).with_suffix("") for page in DOCS.rglob("*.md")]
    assert pages.keys() == {"404.html", *(address(source) for source in sources)}
    check_loads_nothing_from_elsewhere(pages)
    check_names_everything_public("".join(text for name, text in pages.items() if name.startswith("reference/")))
    assert len(VERBS) >= 15
    for verb in VERBS:
        assert f'id="equibit-{verb}"' in pages["reference/command-line/index.html"], verb


def address(source):
    return f"{source.parent if source.name == 'index' else source}/index.html".removeprefix("./")


def check_loads_nothing_from_elsewhere(pages):
    for name, text in pages.items():
        tags = re.findall(r"<(?:script|img|iframe|source|link)\b[^>]*>", text)
        assert tags, name
        for tag in tags:
            assert not re.search(r"\b(?:src|href)=\"?(?:https?:)?//", tag), f"{name}: {tag}"


def check_names_everything_public(reference):
    """Anchors of the reference: for our packages' `__all__` and for the attributes of `equibit` itself."""
    anchors = set(re.findall(r'\bid="(equibit[^"]*)"', reference))
    named = [(module, name) for name, module in equibit._ATTRIBUTES.items()]
    named += [(package, name) for package in PUBLIC_PACKAGES for name in getattr(equibit, package).__all__]
    seen = 0
    for module, name in named:
        thing = getattr(importlib.import_module(f"equibit.{module}"), name)
        if hasattr(thing, "__qualname__"):  # a table has none
            seen += 1
            own = thing.__qualname__  # `list` is `names`
            paths = {f"equibit.{module}.{name}", f"equibit.{module}.{own}", f"{thing.__module__}.{own}"}
            assert paths & anchors, f"the reference lacks {paths}"
    assert seen >= 90


def test_python_that_is_not_run_at_least_compiles():
    for name, page in PAGES.items():
        for block in blocks(page):
            if block.language == "python":
                ast.parse(block.text, filename=f"{name}:{block.line}")
