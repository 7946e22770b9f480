"""Draws the pictures of the method pages: each method applied to one filter, and how its gradient comes back.

    python docs/draw_methods.py

Nothing is drawn from formulas: the curves are what the methods' own code gives.
"""

from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from equibit import methods
from equibit.figures import style
from equibit.methods import Method

OUT = Path(__file__).parent / "images" / "methods"
WEIGHTS = 240  # of the filter
MOMENTS = {0.0: (style.ORANGE, "o", "start"), 0.5: (style.GREEN, "^", "half way"), 1.0: (style.BLUE, ".", "end")}


def main() -> None:
    """Writes one SVG per method."""
    OUT.mkdir(parents=True, exist_ok=True)
    for key in methods.list():
        with matplotlib.rc_context(style.STYLE):
            figure = draw(key)
            figure.savefig(OUT / f"{key}.svg", metadata={"Date": None})


def draw(key: str) -> Figure:
    """Left the effective weight of every weight of a filter, right the share of its gradient that comes back."""
    torch.manual_seed(0)
    method = methods.create(key)
    latent = method.initial(torch.distributions.Normal(0.25, 1.0).sample((1, WEIGHTS)) / WEIGHTS**0.5)
    method.attach(latent)
    source = method.scores if method.freezes_latent else latent
    figure = Figure(figsize=(style.WIDTH, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    drawn: list[Tensor] = []
    for progress, (colour, marker, label) in MOMENTS.items():
        method.advance(progress)
        values, slopes = apply(method, latent, source)
        if drawn and torch.equal(drawn[-1], slopes):
            continue  # no schedule
        drawn.append(slopes)
        scale = float(method.scale(latent).detach().mean())
        for axis, shown in ((left, values), (right, slopes / scale)):
            axis.plot(source.detach()[0], shown, ls="", marker=marker, ms=3, color=colour, label=label, alpha=0.8)
    what = "score" if method.freezes_latent else "latent weight"
    _label(left, f"{what} of each of the {WEIGHTS} weights", "effective weight")
    _label(right, what, f"gradient that reaches the {'score' if method.freezes_latent else 'latent'}")
    if len(drawn) > 1:
        left.legend(markerscale=2)
    return figure


def apply(method: Method, latent: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Effective weights in training, and the diagonal of their derivative by `source`."""
    asked = source.detach().clone().requires_grad_()
    if method.freezes_latent:
        method.scores = torch.nn.Parameter(asked)
        asked, weight = method.scores, method(latent)
    else:
        weight = method(asked)
    slopes = [torch.autograd.grad(w, asked, retain_graph=True)[0][0, i] for i, w in enumerate(weight[0])]
    return weight.detach()[0], torch.stack(slopes)


def _label(axis: Axes, x: str, y: str) -> None:
    axis.axhline(0, color=style.GREY, lw=0.6, zorder=0)
    axis.axvline(0, color=style.GREY, lw=0.6, zorder=0)
    axis.set(xlabel=x, ylabel=y)


if __name__ == "__main__":
    main()
