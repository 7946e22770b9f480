"""ShuffleNet v1 with three groups.

Source: X. Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices",
arXiv:1707.01083.
"""

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from equibit.models.initial import he_normal_
from equibit.models.parts import ACTIVATIONS, conv3x3, stages
from equibit.models.shapes import Shape, require_size, resolve_stem

GROUPS = 3
STEM = 24  # channels of the first convolution
WIDTHS = (240, 480, 960)
DEPTHS = (4, 8, 4)
MINIMUM = {"cifar": 8, "imagenet": 32}  # pixels: three stages halve, the imagenet stem twice


class ShuffleUnit(nn.Module):
    """Grouped 1x1 convolution to a quarter of the channels, shuffle, depthwise 3x3, grouped 1x1; and a skip.

    f(BN(conv3(BN(conv2(shuffle(f(BN(conv1(x)))))))) + x) with stride 1. With stride 2 the shortcut is 3x3 average
    pooling, and the two are joined along the channels instead of added. f is the activation.

    Args:
        inputs: input channels.
        outputs: output channels.
        stride: 1 (then `inputs` equals `outputs`) or 2.
        activation: a key of `ACTIVATIONS`.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, activation: str) -> None:
        super().__init__()
        middle = outputs // 4
        last = outputs - inputs if stride == 2 else outputs
        groups = 1 if inputs == STEM else GROUPS  # the paper groups no convolution of so few channels
        self.conv1 = nn.Conv2d(inputs, middle, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.act1 = ACTIVATIONS[activation](middle)
        self.shuffle = nn.ChannelShuffle(GROUPS)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride=stride, padding=1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, last, 1, groups=GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(last)
        self.act3 = ACTIVATIONS[activation](outputs)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        out = self.shuffle(self.act1(self.bn1(self.conv1(x))))
        out = self.bn3(self.conv3(self.bn2(self.conv2(out))))
        joined: Tensor = self.act3(out + x if self.pool is None else torch.cat((self.pool(x), out), dim=1))
        return joined


def shufflenet(num_classes: int, in_shape: Shape, block: str, stem: str) -> nn.Sequential:
    """ShuffleNet v1, three groups, width 1: 3x3 convolution to 24 channels, stages of 4, 8, 4 units, linear `head`.

    The stages have 240, 480 and 960 channels and begin with stride 2; global average pooling stands before `head`. No
    biases but the head's. Weights are He-normal (fan_in).

    Args:
        num_classes: outputs.
        in_shape: (channels, height, width); the network also takes other sizes of the same channels.
        block: the activation: "relu" for binary weights alone, "hardtanh" or "prelu" for binary activations.
        stem: stride 1 without pooling ("cifar"), stride 2 and 3x3 max pooling with stride 2 ("imagenet", the published
            network), or "auto": cifar for images below 96 pixels.
    """
    stem = resolve_stem(stem, in_shape)
    require_size(f"shufflenet with the {stem} stem", in_shape, MINIMUM[stem])
    large = stem == "imagenet"
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=conv3x3(in_shape[0], STEM, stride=2 if large else 1),
        bn=nn.BatchNorm2d(STEM),
        act=ACTIVATIONS[block](STEM),
    )
    if large:
        layers["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    layers |= {
        "stages": stages(partial(ShuffleUnit, activation=block), STEM, WIDTHS, DEPTHS, first=2),
        "average": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "head": nn.Linear(WIDTHS[-1], num_classes),
    }
    model = nn.Sequential(layers)
    he_normal_(model)
    return model
