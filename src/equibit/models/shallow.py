"""Conv-2, Conv-4, Conv-6, Conv-8: the shallow CIFAR-10 networks of the lottery-ticket literature.

Sources: J. Frankle, M. Carbin, "The Lottery Ticket Hypothesis", arXiv:1803.03635; without biases, and Conv-8, as in
V. Ramanujan et al., "What's Hidden in a Randomly Weighted Neural Network?", arXiv:1911.13299, and J. Diffenderfer,
B. Kailkhura, "Multi-Prize Lottery Ticket Hypothesis", arXiv:2103.09377, whose fully connected layers are written as
1x1 convolutions.
"""

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from equibit.models.initial import he_normal_
from equibit.models.parts import ACTIVATIONS, conv3x3
from equibit.models.shapes import Shape, require_size

WIDTHS = (64, 128, 256, 512)  # channels of each pair of convolutions
HIDDEN = 256  # units of the two hidden linear layers
BLOCKS = ("relu", "hardtanh")


def shallow(num_classes: int, in_shape: Shape, block: str, *, depth: int) -> nn.Sequential:
    """Conv-`depth`: pairs of convolutions, each pair pooled, then 256 - 256 - classes; no biases.

    Convolutions are 3x3 with padding 1, pooling is 2x2. With 3x32x32 and 10 classes:

    ====== =================================== ============ ===============
    depth  convolutions (P: pooling)           features     weights
    ====== =================================== ============ ===============
    2      64 64 P                             64x16x16     4,300,992
    4      64 64 P 128 128 P                   128x8x8      2,425,024
    6      64 64 P 128 128 P 256 256 P         256x4x4      2,261,184
    8      as 6, 512 512 P                     512x2x2      5,275,840
    ====== =================================== ============ ===============

    Weights are He-normal (fan_in): without batch norm the initial weights alone keep the activations at their
    size. Input: float (B, *in_shape), at least 2^(depth / 2) pixels high and wide. Output: logits (B, num_classes).

    Args:
        num_classes: outputs.
        in_shape: (channels, height, width).
        block: what follows every layer but the last: "relu", no batch norm; or "hardtanh" for binary activations, a
            batch norm (after the pooling) and a Hardtanh, which leaves a sign and the gradient that `bireal` has
            within [-1, 1] as they are (the MPT-1/1 network of Diffenderfer and Kailkhura).
        depth: number of convolutions: 2, 4, 6 or 8.
    """
    channels, height, width = in_shape
    pairs = WIDTHS[: depth // 2]
    shrink = 2 ** len(pairs)
    require_size(f"conv{depth}", in_shape, shrink)
    layers: dict[str, nn.Module] = {}
    sizes = [channels, *(size for size in pairs for _ in range(2))]
    for index, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        layers[f"conv{index}"] = conv3x3(inputs, outputs)
        if index % 2 == 0:
            layers[f"pool{index}"] = nn.MaxPool2d(2)
        layers |= _following(block, index, nn.BatchNorm2d(outputs))
    layers["flatten"] = nn.Flatten()
    features = pairs[-1] * (height // shrink) * (width // shrink)
    for index, inputs in enumerate((features, HIDDEN), start=1):
        layers[f"fc{index}"] = nn.Linear(inputs, HIDDEN, bias=False)
        layers |= _following(block, depth + index, nn.BatchNorm1d(HIDDEN))
    layers["head"] = nn.Linear(HIDDEN, num_classes, bias=False)
    model = nn.Sequential(OrderedDict(layers))
    he_normal_(model)
    return model


def _following(block: str, index: int, norm: nn.Module) -> dict[str, nn.Module]:
    """What stands between layer `index` (and its pooling) and the next one."""
    activation = {f"act{index}": ACTIVATIONS[block](HIDDEN)}
    return activation if block == "relu" else {f"bn{index}": norm, **activation}
