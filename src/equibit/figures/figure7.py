"""Figure 7 of Equal Bits: five architectures on CIFAR-100, with sign, IR-Net and bi-half.

VGG16, ResNet-18, ResNet-34, Inception-v3 and ShuffleNet with binary weights (1/32) and with binary activations too
(1/1). Each method in the blocks and with the sign activation of its recipe. Full budget: that of the recipes, one seed.
--quick: 1/32 of the three networks that a CPU can train a little, 3 epochs of 5,000 training images; at 100 classes
this is far from trained, so it says that the experiment runs rather than which method is best.

Source: Y. Li, S.-L. Pintea, J. C. van Gemert, "Equal Bits", arXiv:2112.03406.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equibit.figures.curves import LOOKS, final_percent, points, run_rows
from equibit.figures.kind import Drawing, Kind
from equibit.figures.plan import BI_HALF, IR_NET, QUICK, SIGN, Found, Panel, Setting
from equibit.figures.style import WIDTH, legend_above

NETWORKS = {
    "VGG16": "vgg16",
    "ResNet-18": "resnet18",
    "ShuffleNet": "shufflenet",
    "ResNet-34": "resnet34",
    "Inception-v3": "inception_v3",
}
LIGHT = 3  # networks of --quick: the first of them
METHODS = (("sign", SIGN, "sign"), ("IR-Net", IR_NET, "ede"), ("bi-half", BI_HALF, "sign"))


def panels(quick: bool) -> tuple[Panel, ...]:
    """One panel for binary weights, at full length another for binary activations too."""
    return tuple(
        Panel(
            f"CIFAR-100, {title}",
            {"data.name": "cifar100"},
            tuple(
                Setting(label, recipe, {**method, "activation.name": ste if binary else None, "model.name": name}, x=x)
                for x, name in list(NETWORKS.items())[: LIGHT if quick else None]
                for label, method, ste in METHODS
                for recipe in [f"cifar100-{name}-{method['method.name']}-{kind}{'-short' if quick else ''}"]
            ),
            {**QUICK, "train.epochs": 3} if quick else {},
            free=("model", "activation", "skip"),
        )
        for title, kind, binary in (("1/32", "1w32a", False), ("1/1", "1w1a", True))[: 1 if quick else None]
    )


def _compose(found: Sequence[Found]) -> Drawing:
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, panel in zip(axes, found, strict=True):
        _accuracies(axis, panel)
    legend_above(figure, axes[0])
    return Drawing(figure, run_rows(found, {}))


def _accuracies(axis: Axes, found: Found) -> None:
    """The methods side by side above each network."""
    names = list(dict.fromkeys(setting.x for setting in found.panel.settings))
    for i, (label, _, _) in enumerate(METHODS):
        drawn = [series for series in found.series if series.setting.label == label]
        if drawn:
            places = [names.index(series.setting.x) + 0.18 * (i - 1) for series in drawn]
            look = LOOKS[label]._replace(line="")
            points(axis, places, [final_percent(series) for series in drawn], look, label)
    axis.set_xticks(range(len(names)), [str(name) for name in names], rotation=20, ha="right", rotation_mode="anchor")
    axis.set(title=found.panel.title, ylabel="final test accuracy (%)")
    axis.grid(axis="y", lw=0.3)


FIGURE = Kind(
    "7",
    "Five architectures on CIFAR-100",
    "Final accuracy of each network; bars, where seeds are several: lowest to highest.",
    panels,
    _compose,
)
