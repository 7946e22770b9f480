"""SiMaN's argument for training without L2: which law the latents follow, and where p* lies, through training.

SiMaN says that latents trained with L2 follow a Laplace law, for which the best share of +1 by angle (p*) is 1/e, and
that without L2 they leave it and p* moves to one half. Drawn are, for sign and for SiMaN, each with L2 on the latents
and without: the latents at the end with the Laplace and the Gauss law that fit them best; the difference of the two
fits; p*; the entropy of the binary weights. SiMaN differs from sign in more than L2: its projection pulls in the
largest and the smallest magnitudes of every layer. It forbids L2 on its latents; `optimizer.decay_latents` gives it to
them for this comparison. Its other weights have L2 both times, as in its paper; sign has it on all weights or on none.

Conv-2 on CIFAR-10 with batch norm, L2 of 5e-4. Full budget: SGD at learning rate 0.1, 100 epochs, 3 seeds. --quick:
Adam, 8 epochs of 5,000 training images, 1 seed, 4 trainings; SGD leaves the latents the Gauss law that they were drawn
from for as long as that.

Source: M. Lin et al., "SiMaN: Sign-to-Magnitude Network Binarization", arXiv:2102.07981.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from equibit.figures.curves import CYCLE, Values, epoch_rows, layer_metric, metric, through_training
from equibit.figures.kind import Drawing, Kind
from equibit.figures.plan import CONV2, QUICK, SGD, SIGN, SIMAN, Found, Panel, Series, Setting
from equibit.figures.runs import RunRecord
from equibit.figures.style import BLACK, GREY, SKY, WIDTH, legend_above

L2 = 5e-4
SHARES = {"Laplace 1/e": 1 / math.e, "1/2": 0.5, "Gauss 0.54": 0.5405}  # p* of laws; one half is what SiMaN takes
REACH = 4.0  # the recorded histograms end here, in standard deviations of the layer


def panels(quick: bool) -> tuple[Panel, ...]:
    """One panel of four trainings."""
    return (
        Panel(
            "Conv-2, CIFAR-10",
            {**CONV2, "data.name": "cifar10"},
            tuple(
                Setting(label, f"cifar10-conv2-{method['method.name']}.common-1w32a-short", method, changes)
                for label, method, changes in (
                    ("sign, L2", SIGN, {"optimizer.weight_decay": L2}),
                    ("sign, no L2", SIGN, {"optimizer.weight_decay": 0.0}),
                    ("SiMaN, L2", SIMAN, {"optimizer.weight_decay": L2, "optimizer.decay_latents": True}),
                    ("SiMaN, no L2", SIMAN, {"optimizer.weight_decay": L2, "optimizer.decay_latents": False}),
                )
            ),
            QUICK if quick else {"train.epochs": 100, **SGD},
            seeds=1 if quick else 3,
        ),
    )


def law_difference(run: RunRecord) -> list[tuple[int, float]]:
    """(epoch, mean log likelihood of a latent under the best Laplace law minus that under the best Gauss law)."""
    laplace, gauss = (dict(run.layer_mean(f"{law}_fit")) for law in ("laplace", "gauss"))
    return [(epoch, laplace[epoch] - gauss[epoch]) for epoch in laplace if epoch in gauss]


def _compose(found: Sequence[Found]) -> Drawing:
    (panel,) = found
    recorded = [series for series in panel.series if all(run.layers for run in series.runs)]
    figure = Figure(figsize=(WIDTH, 5.2 if recorded else 3.0), layout="constrained")
    if recorded:
        top, bottom = np.asarray(figure.subfigures(2, 1))
        places = top.subplots(1, len(recorded), sharey=True, squeeze=False)[0]
        for axis, series in zip(places, recorded, strict=True):
            _latents(axis, series)
        places[0].set(ylabel="density")
        places[0].legend(loc="upper right")
        axes = bottom.subplots(1, 3)
        _curves(axes[0], panel, recorded, law_difference, "Laplace fit minus Gauss fit", "nats per latent")
        axes[0].axhline(0, color=GREY, lw=0.8, ls=":")
        _curves(axes[1], panel, recorded, layer_metric("p_star"), "best share of +1 by angle", "p*")
        _shares(axes[1])
    last = axes[2] if recorded else figure.subplots()
    _curves(last, panel, panel.series, metric("bit_entropy"), "binary weights of a filter", "entropy (bits)")
    legend_above(bottom if recorded else figure, last)
    values = {"laplace_minus_gauss": law_difference, "p_star": layer_metric("p_star"), "entropy": metric("bit_entropy")}
    rows = [*epoch_rows(found, values), *(row for series in recorded for row in _histogram_rows(panel, series))]
    absent = [series.setting.label for series in panel.series if series not in recorded]
    missing = tuple(f"the latents of {label}: no layers.jsonl" for label in absent)
    return Drawing(figure, rows, {"final": _final(recorded)}, missing)


def _curves(axis: Axes, found: Found, drawn: Sequence[Series], values: Values, title: str, label: str) -> None:
    for series in drawn:
        through_training(axis, series, values, CYCLE[found.panel.settings.index(series.setting)])
    axis.set(title=title, xlabel="epoch", ylabel=label)


def _shares(axis: Axes) -> None:
    """The p* of known laws as lines."""
    for name, share in SHARES.items():
        axis.axhline(share, color=GREY, lw=0.8, ls=":")
        axis.text(0.99, share, name, transform=axis.get_yaxis_transform(), ha="right", va="bottom", fontsize=8)


def _latents(axis: Axes, series: Series) -> None:
    """The latents of the largest layer after the last epoch, of the first seed, and the two laws that fit them."""
    name, layer = _largest(series.runs[0])
    places, density = _density(layer)
    mean = float(np.sum(density * np.abs(places)) / np.sum(density))  # the scale of the Laplace law that fits best
    axis.fill_between(places, density, step="mid", color=SKY, alpha=0.6, lw=0, label="latents")
    axis.plot(places, np.exp(-np.abs(places) / mean) / (2 * mean), color=BLACK, ls="--", label="Laplace")
    axis.plot(places, np.exp(-(places**2) / 2) / math.sqrt(2 * math.pi), color=BLACK, ls="-", lw=0.9, label="Gauss")
    axis.set(title=f"{series.setting.label}: {name}", xlabel="latent / deviation")
    axis.set(yscale="log", ylim=(1e-4, 50), xlim=(-REACH, REACH))
    axis.minorticks_off()


def _largest(run: RunRecord) -> tuple[str, Mapping[str, Any]]:
    layers: Mapping[str, Mapping[str, Any]] = run.layers[-1]["layers"]
    return max(layers.items(), key=lambda item: int(item[1]["weights"]))


def _density(layer: Mapping[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middles of the bins in standard deviations from the mean, and the density there."""
    counts = np.asarray(layer["latent_histogram"], dtype=np.float64)
    width = 2 * REACH / len(counts)
    middles = np.arange(0.5, len(counts), dtype=np.float64) * width - REACH
    return middles, np.asarray(counts / (width * layer["weights"]), dtype=np.float64)


def _histogram_rows(found: Found, series: Series) -> list[dict[str, Any]]:
    """One row for every run, layer and bin, after the last epoch."""
    rows = []
    for run in series.runs:
        for name, layer in run.layers[-1]["layers"].items():
            place = {"panel": found.panel.title, "series": series.setting.label, "seed": run.seed, "layer": name}
            bins = zip(*_density(layer), strict=True)
            rows += [{**place, "deviations": float(at), "density": float(density)} for at, density in bins]
    return rows


def _final(recorded: Sequence[Series]) -> dict[str, Any]:
    """By setting and layer, of the first seed: which law fits better, and p*."""
    keys = ("laplace_fit", "gauss_fit", "p_star")
    return {
        series.setting.label: {
            name: {key: layer[key] for key in keys} for name, layer in series.runs[0].layers[-1]["layers"].items()
        }
        for series in recorded
    }


FIGURE = Kind(
    "siman",
    "Latents with and without L2: Laplace or Gauss, and p*",
    "Top: latents of the largest layer after training (first seed), in standard deviations, and the laws that fit them "
    "best. Bottom: means over layers; above 0 the Laplace law fits better. L2 is 5e-4. SiMaN's projection pulls in its "
    "largest and smallest magnitudes.",
    panels,
    _compose,
)
