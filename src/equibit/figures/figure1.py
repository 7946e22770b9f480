"""Figure 1 of Equal Bits: entropy of the binary weights, and of the activations, through training.

The paper: (a) weights of Conv-2 on CIFAR-10, (b) activations of ResNet-18 on CIFAR-100; both for sign, IR-Net, bi-half.
Here both are drawn for both networks. The entropy of the weights is that of each filter's share of +1, averaged over
all filters; that of the activations is of each channel's share of sign(x) = +1 over batch and space, x the input of a
binary layer, averaged over channels and layers.

Conv-2 is the one with a batch norm and a Hardtanh for all three methods: IR-Net diverges without the batch norm, and
behind a ReLU sign(x) is constant. ResNet-18 has binary activations (1/1), for the same reason. Full budget: 100 epochs
and 3 seeds of Conv-2, 350 epochs and 1 seed of ResNet-18. --quick: Conv-2 only, 8 epochs of 5,000 training images, 3
seeds: 9 trainings of 320 steps.

Source: Y. Li, S.-L. Pintea, J. C. van Gemert, "Equal Bits", arXiv:2112.03406.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equibit.figures.curves import LOOKS, Values, epoch_rows, layer_metric, metric, through_training
from equibit.figures.kind import Drawing, Kind
from equibit.figures.plan import BI_HALF, CONV2, IR_NET, QUICK, RESNET18, SIGN, Found, Panel, Setting
from equibit.figures.style import WIDTH, legend_above

WEIGHTS, ACTIVATIONS = metric("bit_entropy"), layer_metric("activation_entropy")


def panels(quick: bool) -> tuple[Panel, ...]:
    """Three methods in Conv-2 on CIFAR-10 and, at full length, in ResNet-18 on CIFAR-100."""
    conv2 = Panel(
        "Conv-2, CIFAR-10",
        {**CONV2, "data.name": "cifar10"},
        tuple(
            Setting(label, f"cifar10-conv2-{name}-1w32a-short", method)
            for label, name, method in (
                ("sign", "sign.common", SIGN),
                ("IR-Net", "ir_net", IR_NET),
                ("bi-half", "bi_half.common", BI_HALF),
            )
        ),
        QUICK if quick else {"train.epochs": 100},
        seeds=3,
    )
    resnet18 = Panel(
        "ResNet-18 1/1, CIFAR-100",
        {**RESNET18, "data.name": "cifar100"},
        tuple(
            Setting(label, f"cifar100-resnet18-{method['method.name']}-1w1a", {**method, "activation.name": activation})
            for label, method, activation in (
                ("sign", SIGN, "sign"),
                ("IR-Net", IR_NET, "ede"),
                ("bi-half", BI_HALF, "sign"),
            )
        ),
        free=("activation",),
    )
    return (conv2,) if quick else (conv2, resnet18)


def _compose(found: Sequence[Found]) -> Drawing:
    figure = Figure(figsize=(WIDTH, 0.5 + 2.7 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), 2, squeeze=False)
    missing = []
    for (left, right), panel in zip(axes, found, strict=True):
        _curves(left, panel, WEIGHTS, f"binary weights: {panel.panel.title}", "entropy of a filter (bits)")
        drawn = _curves(right, panel, ACTIVATIONS, f"activations: {panel.panel.title}", "entropy of a channel (bits)")
        if drawn < len(panel.series):
            missing.append(
                f"{panel.panel.title}: the activations of {len(panel.series) - drawn} methods: no layers.jsonl"
            )
    legend_above(figure, axes[0][0])
    return Drawing(figure, epoch_rows(found, {"weights": WEIGHTS, "activations": ACTIVATIONS}), missing=tuple(missing))


def _curves(axis: Axes, found: Found, values: Values, title: str, label: str) -> int:
    """Draws the series whose runs hold the value, and counts them."""
    drawn = [series for series in found.series if all(values(run) for run in series.runs)]
    for series in drawn:
        through_training(axis, series, values, LOOKS[series.setting.label])
    axis.set(title=title, xlabel="epoch", ylabel=label)
    return len(drawn)


FIGURE = Kind(
    "1",
    "Entropy of binary weights and of activations through training",
    "Entropy of the share of +1: of a filter's weights, mean over filters; of sign(x) of a channel, mean over channels "
    "and layers. Bands: lowest to highest seed. IR-Net needs the batch norm that Conv-2 has with block hardtanh only.",
    panels,
    _compose,
)
