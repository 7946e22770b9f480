"""The demo's picture: accuracy through training, and the bits of the first binary layer as black and white."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import safetensors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from equibit import bits

# Okabe and Ito's colours, distinct for the colour-blind and in grey.
COLOURS = {"float": "#000000", "sign": "#E69F00", "bi_half": "#0072B2"}
_SHOWN = 16  # filters and input channels drawn of a layer


def draw(folder: Path) -> Path:
    """Draws `folder`/demo.png from demo.json, the run folders and the packed checkpoints beside it.

    Returns:
        The picture's path.
    """
    record = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    packed = [net for net in record["networks"] if net["packed_file"]]
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        axes = figure.subplots(1, 1 + len(packed), width_ratios=[1.3, *[1] * len(packed)])
        _curves(axes[0], folder, record)
        for axis, net in zip(axes[1:], packed, strict=True):
            _filters(axis, folder / net["packed_file"], net)
        figure.suptitle(
            "The same network on the digits, with float weights and with weights of exactly -1 and +1", fontsize=11
        )
        path = folder / "demo.png"
        figure.savefig(path, dpi=150)
    return path


def _curves(axis: Axes, folder: Path, record: dict[str, Any]) -> None:
    for net in record["networks"]:
        lines = (folder / net["run"] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        label = f"{net['name']}: {100 * net['final_accuracy']:.1f} %, file {net['onnx_bytes'] / 1000:.0f} kB"
        epochs, accuracy = [r["epoch"] for r in rows], [100 * r["test_accuracy"] for r in rows]
        axis.plot(epochs, accuracy, color=COLOURS[net["name"]], label=label)
    axis.set(xlabel="epoch", ylabel=f"accuracy on all {record['test_n']} test images (%)", ylim=(80, 100.5))
    axis.legend(loc="lower right", frameon=False)


def _filters(axis: Axes, path: Path, net: dict[str, Any]) -> None:
    name, kernels = first_layer(path)
    axis.imshow(_mosaic(kernels[:_SHOWN, :_SHOWN]), cmap="gray", vmin=-1, vmax=1.0, interpolation="nearest")
    low, high = net["ratio_lowest"], net["ratio_highest"]
    share = "50 % +1 in every filter" if low == high == 0.5 else f"{100 * low:.0f} to {100 * high:.0f} % +1 in a filter"
    axis.set_title(f"{net['name']}: {name}, {share}", fontsize=9)
    axis.set(xlabel="input channel", ylabel="filter", xticks=[], yticks=[])


def first_layer(path: Path) -> tuple[str, NDArray[np.int8]]:
    """Name and binary weight (filters, channels, height, width) of a packed checkpoint's first convolution."""
    with safetensors.safe_open(path, framework="numpy") as file:
        layer = next(layer for layer in json.loads(file.metadata()["layers"]) if layer["kind"] == "Conv2d")
        shape = tuple(layer["shape"])
        rows = bits.unpack_bits(file.get_tensor(f"{layer['name']}.bits"), int(np.prod(shape[1:])))
    return layer["name"], bits.rows_to_filters(rows, shape)


def _mosaic(kernels: NDArray[np.int8]) -> NDArray[np.float64]:
    """Kernels (filters, channels, h, w) side by side, filters downwards, grey lines between them."""
    filters, channels, height, width = kernels.shape
    tiles = np.zeros((filters, height + 1, channels, width + 1))  # 0 is grey
    tiles[:, :height, :, :width] = kernels.transpose(0, 2, 1, 3)
    return tiles.reshape(filters * (height + 1), channels * (width + 1))[:-1, :-1]
