"""Everything below a folder of records, sorted into what the page shows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equibit.errors import FormatError
from equibit.figures import catalog, runs
from equibit.figures.kind import Kind
from equibit.results import benchmarks, published, speed
from equibit.results.benchmarks import Benchmark
from equibit.results.groups import Group, alike, budget, group, select
from equibit.results.published import Comparison, Count, Paper, Row, Table
from equibit.results.speed import Layers, Network

FIGURES = "figures"  # the folder of the pictures, below that of the records


@dataclass(frozen=True)
class Cell:
    """A published row with the runs that repeat it, and the epochs of its recipe."""

    row: Row
    groups: tuple[Group, ...]
    budget: int | None

    @property
    def full(self) -> bool:
        """Whether a run has the length of the recipe and nothing else changed."""
        return any(g.epochs == self.budget and not g.changes for g in self.groups)


@dataclass(frozen=True)
class Counted:
    """A published exact number with ours, None where its figure was not drawn."""

    count: Count
    ours: int | None


@dataclass(frozen=True)
class PaperResults:
    """A paper with the runs of its rows."""

    paper: Paper
    tables: tuple[tuple[Table, tuple[Cell, ...]], ...]
    counts: tuple[Counted, ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells of its tables."""
        return tuple(cell for _, cells in self.tables for cell in cells)


@dataclass(frozen=True)
class Figure:
    """A figure of a paper, and the content of its JSON; None where no run fits it."""

    kind: Kind
    record: dict[str, Any] | None


@dataclass(frozen=True)
class Collection:
    """What a folder of records holds.

    Attributes:
        papers: Every paper, with the runs that repeat its rows.
        comparisons: Our own, with their groups; those without a run are left out.
        figures: Those of the papers, as last drawn into `FIGURES`.
        groups: All of them.
        others: Those that appear in neither.
        unfinished: Run folders that are not finished, relative to the folder.
        networks: Speed of exported networks.
        layers: Speed of binary layers.
        benchmarks: All timings.
    """

    papers: tuple[PaperResults, ...]
    comparisons: tuple[tuple[Comparison, tuple[Group, ...]], ...]
    figures: tuple[Figure, ...]
    groups: tuple[Group, ...]
    others: tuple[Group, ...]
    unfinished: tuple[str, ...]
    networks: tuple[Network, ...]
    layers: tuple[Layers, ...]
    benchmarks: tuple[Benchmark, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: accuracies of ours are fractions, published numbers are as printed."""
        return {
            "papers": [
                {"paper": p.paper.paper, "table": table.table, **vars(cell.row), **_runs(cell.groups)}
                for p in self.papers
                for table, cells in p.tables
                for cell in cells
            ],
            "comparisons": [{"comparison": c.key, **_runs(groups)} for c, groups in self.comparisons],
            "figures": [{"figure": f.kind.name, "drawn": f.record is not None} for f in self.figures],
            "others": [g.to_dict() for g in self.others],
            "unfinished": list(self.unfinished),
            "benchmarks": [vars(benchmark) for benchmark in self.benchmarks],
        }


def collect(folder: Path) -> Collection:
    """Reads all records below a folder.

    Raises:
        FileError: There is no such folder.
        FormatError: A record is damaged.
    """
    records = runs.find([folder])
    groups = group(records)
    figures = tuple(Figure(catalog.get(name), _record(folder / FIGURES / f"{name}.json")) for name in catalog.NAMES)
    papers = tuple(_paper(paper, groups, figures) for paper in published.papers())
    compared = tuple((c, tuple(alike(select(groups, c.recipes)))) for c in published.comparisons())
    shown = [g for p in papers for cell in p.cells for g in cell.groups] + [g for _, own in compared for g in own]
    return Collection(
        papers=papers,
        comparisons=tuple((c, own) for c, own in compared if own),
        figures=figures,
        groups=tuple(groups),
        others=tuple(g for g in groups if g not in shown),
        unfinished=tuple(str(r.path.relative_to(folder)) for r in records if not (r.finished and r.summary)),
        networks=speed.networks(folder),
        layers=speed.layers(folder),
        benchmarks=benchmarks.find(folder),
    )


def _runs(groups: Sequence[Group]) -> dict[str, Any]:
    return {"groups": [g.to_dict() for g in groups]}


def _paper(paper: Paper, groups: Sequence[Group], figures: Sequence[Figure]) -> PaperResults:
    tables = tuple((table, tuple(_cell(row, groups) for row in table.rows)) for table in paper.tables)
    exact = next((figure.record for figure in figures if figure.kind.name == "6"), None) or {}
    return PaperResults(paper, tables, tuple(Counted(count, exact.get(count.key)) for count in paper.counts))


def _cell(row: Row, groups: Sequence[Group]) -> Cell:
    return Cell(row, tuple(select(groups, row.recipes)), None if row.recipe is None else budget(row.recipe))


def _record(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise FormatError(f"{path} is damaged: {error}.") from None
    return content
