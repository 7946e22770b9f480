"""`equibit analyze`: what the bits of a run are, and what they did through training."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from torch.nn.functional import cross_entropy

from equibit import analysis, convert, data
from equibit.cli import output
from equibit.cli.runs import open_run, use_data
from equibit.cli.verb import Verb, add_json
from equibit.errors import InputError
from equibit.figures import analyze as picture
from equibit.layers import binary_layers, weight_name
from equibit.tables import render
from equibit.training import Run
from equibit.training.record import best_row

Row = dict[str, Any]

_BATCH = 256  # images in memory at a time
_RECORDED = ("flip_rate", "step_flip_rate", "never_flipped", "activation_entropy", "constant_inputs")


def _add(parser: ArgumentParser, words: list[str]) -> None:
    parser.add_argument("run", help="a run folder; the run may be unfinished")
    parser.add_argument("--weights", choices=["final", "best"], default="final", help="which weights of the run")
    parser.add_argument("--plot", metavar="DIR", help="folder for the pictures analyze*.png and .svg and their .csv")
    parser.add_argument("--twin", metavar="RUN", help="a run of the same network with float weights, to compare signs")
    parser.add_argument(
        "--sensitivity", action="store_true", help="also how the loss depends on the bits of each layer"
    )
    parser.add_argument("--images", type=int, default=512, help="test images that --sensitivity computes the loss on")
    parser.add_argument("--data", help="folder of the data sets, instead of EQUIBIT_DATA")
    add_json(parser)


def _run(args: Namespace) -> int:
    run = open_run(args.run, args.weights)
    layers = _layers(run, args.weights)
    if args.twin is not None:
        _add_twin(layers, run, open_run(args.twin, "final"))
    if args.sensitivity:
        _add_sensitivity(layers, run, args)
    found = {"layers": layers, "epochs": run.metrics, "records": run.layers}
    text = "\n".join([*_layer_tables(layers), _epoch_table(run.metrics)])
    if args.plot is not None:
        text += "\n" + "\n".join(f"Picture: {path}" for path in picture.draw(found, Path(args.plot), run.recipe.name))
    output.result(text, found, as_json=args.json)
    return 0


def _layers(run: Run, weights: str) -> list[Row]:
    """The bits of every layer, and what was recorded of it after the epoch that the weights are from."""
    epoch = best_row(run.metrics)["epoch"] if weights == "best" else len(run.metrics)
    recorded: Row = next((line["layers"] for line in run.layers if line["epoch"] == epoch), {})
    return [
        {**layer.to_dict(), **{key: recorded.get(layer.name, {}).get(key) for key in _RECORDED}}
        for layer in analysis.layer_bits(run.model)
    ]


def _add_twin(layers: list[Row], run: Run, twin: Run) -> None:
    """Adds `sign_agreement`: the share of binary weights with the sign of the twin's."""
    state, binary = twin.model.state_dict(), convert.binary_weights(run.model) if layers else {}
    if any(binary_layers(twin.model)):
        raise InputError(f"{twin.path} has binary layers; --twin takes a run of the float network.")
    for layer in layers:
        name = weight_name(layer["name"])
        if name not in state or state[name].shape != binary[name].shape:
            raise InputError(f"{twin.path} has no layer {layer['name']!r} of the same shape; it is another network.")
        layer["sign_agreement"] = analysis.sign_agreement(binary[name], state[name])


def _add_sensitivity(layers: list[Row], run: Run, args: Namespace) -> None:
    """Adds `latent_change` and `flip_change`."""
    for layer, found in zip(layers, analysis.sensitivity(run.model, _loss(run, args)), strict=True):
        layer |= {key: value for key, value in found.to_dict().items() if key != "name"}


def _loss(run: Run, args: Namespace) -> Callable[[], float]:
    """The mean cross-entropy of the first test images."""
    if args.images < 1:
        raise InputError(f"--images is {args.images}; it must be at least 1.")
    pixels = run.recipe.data
    assert pixels.mean is not None  # a run's config is complete
    assert pixels.std is not None
    test = data.load(pixels.name, root=use_data(args.data), **pixels.options).test
    read = test.batches(data.sequential(min(args.images, len(test)), _BATCH))
    batches = [(data.normalize(images, pixels.mean, pixels.std), labels) for images, labels in read]

    @torch.no_grad()
    def loss() -> float:
        sums = [cross_entropy(run.model(x).float(), labels, reduction="sum").double() for x, labels in batches]
        return float(sum(sums)) / sum(len(labels) for _, labels in batches)

    return loss


def _layer_tables(layers: list[Row]) -> list[str]:
    if not layers:
        return ["This run has float weights: there is no binary layer to analyse."]
    tables = [_bit_table(layers), _latent_table(layers), _record_table(layers)]
    return [*tables, _comparison_table(layers)] if _compared(layers[0]) else tables


def _bit_table(layers: list[Row]) -> str:
    rows = [
        (
            layer["name"],
            layer["kind"],
            "x".join(map(str, layer["shape"])),
            layer["method"],
            _share(layer["ratio_mean"]),
            f"{100 * layer['ratio_min']:.1f} to {_share(layer['ratio_max'])}",
            f"{layer['entropy_mean']:.4f}",
            f"{layer['entropy_min']:.4f}",
            _share(layer["kept"]),
            layer["dead_filters"],
        )
        for layer in layers
    ]
    columns = ("layer", "kind", "weight", "method", "+1", "per filter", "entropy", "lowest", "kept", "dead")
    return render(columns, rows)


def _latent_table(layers: list[Row]) -> str:
    rows = [
        (
            layer["name"],
            f"{layer['latent_mean']:.1e} ± {layer['latent_std']:.1e}",
            _better_fit(layer),
            f"{layer['p_star']:.3f}",
            f"{layer['angle']:.1f}",
            _decimal(layer["quantization_error"], 3),
            _decimal(layer["residual"], 4),
        )
        for layer in layers
    ]
    columns = ("layer", "latents", "better fit (nats)", "p*", "angle (degrees)", "quantisation error", "residual")
    return render(columns, rows)


def _record_table(layers: list[Row]) -> str:
    rows = [
        (
            layer["name"],
            output.percent(layer["flip_rate"]),
            output.percent(layer["step_flip_rate"]),
            _share(layer["never_flipped"]),
            _decimal(layer["activation_entropy"], 4),
            "-" if layer["constant_inputs"] is None else layer["constant_inputs"],
        )
        for layer in layers
    ]
    columns = (
        "layer",
        "flips in the epoch",
        "in its last step",
        "never flipped",
        "entropy of inputs",
        "constant inputs",
    )
    return render(columns, rows)


def _better_fit(layer: Row) -> str:
    if layer["gauss_fit"] is None:
        return "-"
    gap = layer["gauss_fit"] - layer["laplace_fit"]
    return f"{'Gauss' if gap > 0 else 'Laplace'} by {abs(gap):.3f}"


def _compared(layer: Row) -> Mapping[str, str]:
    """The keys that --twin and --sensitivity added, with their headings."""
    headings = {
        "sign_agreement": "signs of the twin",
        "latent_change": "loss with latents",
        "flip_change": "loss with 5 % flipped",
    }
    return {key: heading for key, heading in headings.items() if key in layer}


def _comparison_table(layers: list[Row]) -> str:
    headings = _compared(layers[0])
    rows = [
        (layer["name"], *(_share(layer[k]) if k == "sign_agreement" else f"{layer[k]:+.4f}" for k in headings))
        for layer in layers
    ]
    return render(("layer", *headings.values()), rows)


def _share(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def _decimal(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def _epoch_table(epochs: list[Row]) -> str:
    rows = [
        (
            row["epoch"],
            f"{row['train_loss']:.4f}",
            output.percent(row["test_accuracy"]),
            output.percent(row["bit_ratio"]),
            _decimal(row["bit_entropy"], 4),
            output.percent(row["flip_rate"]),
        )
        for row in epochs
    ]
    return render(("epoch", "train loss", "test accuracy", "+1", "entropy", "flips"), rows)


ANALYZE = Verb(
    "Of every binary layer: share of +1, entropy in bits, kept share and dead filters (a filter is dead that keeps no "
    "weight or only equal ones), entropy of its inputs' signs and weights that never flipped; its latent weights: "
    "whether a Gaussian or a Laplace law fits better, SiMaN's p*, angle and error against the binary weights, residual "
    "of a relaxation. Of every epoch: loss, accuracy, share of +1, entropy and flips since the epoch before. --twin "
    "adds the agreement of signs with a float run; --sensitivity how the loss changes when one layer computes with its "
    "latent weights, and when 5 % of its bits are flipped at random.",
    _add,
    _run,
)
