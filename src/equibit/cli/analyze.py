"""`equibit analyze`: what the bits of a run are, and what they did through training."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from equibit import analysis
from equibit.analysis import LayerBits
from equibit.cli import output
from equibit.cli.runs import open_run
from equibit.cli.verb import Verb, add_json
from equibit.figures import analyze as picture
from equibit.tables import render


def _add(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("run", help="a run folder; the run may be unfinished")
    parser.add_argument("--weights", choices=["final", "best"], default="final", help="which weights of the run")
    parser.add_argument("--plot", metavar="DIR", help="folder for analyze.png, .svg, .csv and .layers.csv")
    add_json(parser)


def _run(args: Namespace) -> int:
    run = open_run(args.run, args.weights)
    layers = analysis.layer_bits(run.model)
    found = {"layers": [layer.to_dict() for layer in layers], "epochs": run.metrics}
    text = f"{_layer_table(layers)}\n{_epoch_table(run.metrics)}"
    if args.plot is not None:
        text += f"\nPicture: {picture.draw(found, Path(args.plot), run.recipe.name)}"
    output.result(text, found, as_json=args.json)
    return 0


def _layer_table(layers: tuple[LayerBits, ...]) -> str:
    if not layers:
        return "This run has float weights: there is no binary layer to analyse."
    rows = [
        (
            layer.name,
            layer.kind,
            "x".join(map(str, layer.shape)),
            layer.method,
            _share(layer.ratio_mean),
            f"{_share(layer.ratio_min)} to {_share(layer.ratio_max)}",
            f"{layer.entropy_mean:.4f}",
            f"{layer.entropy_min:.4f}",
            _share(layer.kept),
            f"{layer.latent_mean:.1e} ± {layer.latent_std:.1e}",
        )
        for layer in layers
    ]
    columns = ("layer", "kind", "weight", "method", "+1", "per filter", "entropy", "lowest", "kept", "latents")
    return render(columns, rows)


def _share(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _epoch_table(epochs: list[dict[str, Any]]) -> str:
    rows = [
        (
            row["epoch"],
            f"{row['train_loss']:.4f}",
            output.percent(row["test_accuracy"]),
            output.percent(row["bit_ratio"]),
            "-" if row["bit_entropy"] is None else f"{row['bit_entropy']:.4f}",
            output.percent(row["flip_rate"]),
        )
        for row in epochs
    ]
    return render(("epoch", "train loss", "test accuracy", "+1", "entropy", "flips"), rows)


ANALYZE = Verb(
    "Share of +1, entropy in bits, kept share and latent weights of every binary layer, over its filters; loss, "
    "accuracy, share of +1, entropy and flips (weights that changed sign since the epoch before) of every epoch.",
    _add,
    _run,
)
