"""Speed of exported networks and of the layers in them: what benchmarks/networks.py and kernels.py recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equibit.figures import style
from equibit.results import benchmarks

OURS, FLOAT, INT8 = "equibit", "onnxruntime-float", "onnxruntime-int8"
NETWORKS, LAYERS = "speed_networks", "speed_layers"  # names of the pictures
_SHOWN = {FLOAT: style.BLUE, INT8: style.VERMILION}
_INPUTS = {"sign": style.VERMILION, "real": style.BLUE, "int8": style.GREEN}


@dataclass(frozen=True)
class Network:
    """A network in several engines, timed in turns.

    Attributes:
        file: The record, relative to the folder of records.
        title: Network, threads and our kernel level; what the engines were limited to.
        engines: The figures of each, by name.
    """

    file: str
    title: str
    engines: Mapping[str, Mapping[str, Any]]

    def speed(self, engine: str) -> tuple[float, float, float] | None:
        """How many times as fast ours is: medians, and that of ours when slow (p90) and fast (p10)."""
        if engine not in self.engines:
            return None
        ours, median = self.engines[OURS], self.engines[engine]["median_ms"]
        return median / ours["median_ms"], median / ours["p90_ms"], median / ours["p10_ms"]


@dataclass(frozen=True)
class Layers:
    """Multiply-accumulates a cycle of binary layers, at the best level of a CPU.

    Attributes:
        file: The record, relative to the folder of records.
        title: CPU, level and threads.
        inputs: Kinds of input that were timed.
        ceilings: What the arithmetic of a tile alone allows, by kind.
        rates: By layer and kind: in turn, and at once again.
    """

    file: str
    title: str
    inputs: tuple[str, ...]
    ceilings: Mapping[str, float]
    rates: Mapping[str, Mapping[str, tuple[float, float]]]


def networks(folder: Path) -> tuple[Network, ...]:
    """All records of whole networks below a folder that hold ours.

    Raises:
        FormatError: A JSON file is damaged.
    """
    found = []
    for path, content in benchmarks.records(folder):
        if {"network", "results"} <= content.keys():
            engines = {result["engine"]: result for result in content["results"]}
            if OURS in engines:
                found.append(Network(path.relative_to(folder).as_posix(), _title(content), engines))
    return tuple(found)


def layers(folder: Path) -> tuple[Layers, ...]:
    """All records of single layers below a folder.

    Raises:
        FormatError: A JSON file is damaged.
    """
    return tuple(
        _layers(path.relative_to(folder).as_posix(), content)
        for path, content in benchmarks.records(folder)
        if {"levels", "layers", "networks"} <= content.keys()
    )


def engines_of(found: Sequence[Network]) -> tuple[str, ...]:
    """The engines of all records but ours, in the order in which they appear."""
    return tuple(dict.fromkeys(name for network in found for name in network.engines if name != OURS))


def draw(records: Path, out: Path) -> list[Path]:
    """Draws the speed of the networks and of the layers, as far as there are records; `out` exists."""
    drawn = []
    with matplotlib.rc_context(dict(style.STYLE)):
        if whole := networks(records):
            drawn.append(style.save(_draw_networks(whole), out / NETWORKS))
        if single := layers(records):
            drawn.append(style.save(_draw_layers(single), out / LAYERS))
    return drawn


def _title(content: Mapping[str, Any]) -> str:
    threads = f"{content['threads']} thread{'s' if content['threads'] != 1 else ''}"
    return f"{content['network']}, {threads}, {content['kernel']}{benchmarks.conditions(content)}"


def _layers(file: str, content: Mapping[str, Any]) -> Layers:
    level = content["levels"][0]
    rates: dict[str, dict[str, tuple[float, float]]] = {}
    ceilings: dict[str, float] = {}
    for layer in content["layers"]:
        results = [result for result in layer["results"] if result["level"] == level]
        rates[layer["layer"]] = {
            r["input"]: (r["in_turn"]["macs_per_cycle"], r["again"]["macs_per_cycle"]) for r in results
        }
        ceilings |= {r["input"]: r["ceiling"] for r in results if r["ceiling"]}
    inputs = tuple(dict.fromkeys(kind for of_layer in rates.values() for kind in of_layer))
    title = f"{content['cpu']}, {level}, {content['threads']} thread{'s' if content['threads'] != 1 else ''}"
    return Layers(file, title, inputs, ceilings, rates)


def _draw_networks(found: Sequence[Network]) -> Figure:
    figure = Figure(figsize=(style.WIDTH, 1.1 + 0.3 * len(found)), layout="constrained")
    axis = figure.subplots()
    for place, (engine, colour) in enumerate(_SHOWN.items()):
        rows = [(row + 0.2 * place - 0.1, speed) for row, net in enumerate(found) if (speed := net.speed(engine))]
        values = [speed[0] for _, speed in rows]
        spread = [[speed[0] - speed[1] for _, speed in rows], [speed[2] - speed[0] for _, speed in rows]]
        axis.errorbar(values, [row for row, _ in rows], xerr=spread, fmt="o", color=colour, capsize=2, label=engine)
    axis.axvline(1, color=style.GREY, lw=0.8)
    axis.set(
        xlabel="times as fast (medians; bars: our 10th to 90th percentile)",
        xscale="log",
        xticks=(ticks := [0.5, 1, 2, 4, 8, 16]),
        xticklabels=list(map(str, ticks)),
        yticks=range(len(found)),
        yticklabels=[network.title for network in found],
        ylim=(len(found) - 0.5, -0.5),
    )
    axis.minorticks_off()
    axis.grid(axis="x", color=style.GREY, alpha=0.25)
    figure.suptitle("Our speed over stock engines, batch 1", x=0.01, ha="left", fontsize=9)
    axis.legend(ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    return figure


def _draw_layers(found: Sequence[Layers]) -> Figure:
    rows = max(len(record.rates) for record in found)
    figure = Figure(figsize=(style.WIDTH, len(found) * (0.9 + 0.26 * rows)), layout="constrained")
    for axis, record in zip(figure.subplots(len(found), squeeze=False)[:, 0], found, strict=True):
        _draw_rates(axis, record)
    return figure


def _draw_rates(axis: Axes, record: Layers) -> None:
    for place, kind in enumerate(record.inputs):
        pairs = [(row + 0.22 * (place - 1), r[kind]) for row, r in enumerate(record.rates.values()) if kind in r]
        colour, ys = _INPUTS[kind], [y for y, _ in pairs]
        axis.plot([rate[0] for _, rate in pairs], ys, "o", color=colour, label=f"{kind}: in turn")
        axis.plot([rate[1] for _, rate in pairs], ys, "o", color=colour, mfc="none", label="again")
        if kind in record.ceilings:
            axis.axvline(record.ceilings[kind], color=colour, ls="--", lw=1, label="ceiling of the tile")
    names = list(record.rates)
    axis.set(
        xlabel="multiply-accumulates a cycle",
        xscale="log",
        xticks=(ticks := [4, 8, 16, 32, 64, 128, 256, 512]),
        xticklabels=list(map(str, ticks)),
        yticks=range(len(names)),
        yticklabels=names,
        ylim=(len(names) - 0.5, -0.5),
    )
    axis.minorticks_off()
    axis.grid(axis="x", color=style.GREY, alpha=0.25)
    axis.set_title(f"Binary layers by input: {record.title}", loc="left")
    axis.legend(ncols=len(record.inputs), loc="upper center", bbox_to_anchor=(0.4, -0.15))
