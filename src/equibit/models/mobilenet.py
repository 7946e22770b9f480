"""MobileNet v1: depthwise and pointwise convolutions in turn.

Source: A. Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
arXiv:1704.04861.
"""

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from equibit.models.initial import he_normal_
from equibit.models.parts import conv_norm
from equibit.models.shapes import Shape, require_size, resolve_stem

WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)  # of the stem and of each unit
MINIMUM = {"cifar": 16, "imagenet": 32}  # pixels: four units halve, and so does the imagenet stem


def mobilenet_v1(num_classes: int, in_shape: Shape, block: str, stem: str) -> nn.Sequential:
    """MobileNet v1, width 1: a 3x3 convolution, 13 units, global average pooling, linear `head`.

    A unit is a 3x3 convolution of each channel by itself, batch norm, activation, and a 1x1 convolution, batch norm,
    activation; it has stride 2 where the width grows (but from 32 to 64). 3,217,226 parameters with 10 classes,
    4,231,976 with 1000. No biases but the head's. Weights are He-normal (fan_in).

    Args:
        num_classes: outputs.
        in_shape: (channels, height, width); the network also takes other sizes of the same channels.
        block: the activation: "relu" for binary weights alone, "hardtanh" or "prelu" for binary activations.
        stem: stride 1 ("cifar") or 2 ("imagenet", the published network); "auto": cifar for images below 96 pixels.
    """
    stem = resolve_stem(stem, in_shape)
    require_size(f"mobilenet_v1 with the {stem} stem", in_shape, MINIMUM[stem])
    layers: dict[str, nn.Module] = {
        "stem": conv_norm(in_shape[0], WIDTHS[0], 3, block, stride=2 if stem == "imagenet" else 1)
    }
    for index, (inputs, outputs) in enumerate(pairwise(WIDTHS), start=1):
        stride = 2 if index > 1 and outputs > inputs else 1
        layers |= {
            f"depthwise{index}": conv_norm(inputs, inputs, 3, block, stride=stride, groups=inputs),
            f"pointwise{index}": conv_norm(inputs, outputs, 1, block),
        }
    layers |= {
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "head": nn.Linear(WIDTHS[-1], num_classes),
    }
    model = nn.Sequential(OrderedDict(layers))
    he_normal_(model)
    return model
