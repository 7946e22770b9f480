"""Wide residual networks: WRN-28-10 as published, and the WRN-20-10 of 1-bit weights.

Sources: S. Zagoruyko, N. Komodakis, "Wide Residual Networks", arXiv:1605.07146; M. McDonnell, "Training wide residual
networks for deployment using a single bit for each weight", arXiv:1802.08530.
"""

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from equibit.models.initial import he_normal_
from equibit.models.parts import average_pool, conv1x1, conv3x3, stages, zero_channels
from equibit.models.shapes import Shape, require_size

WIDTHS = (160, 320, 640)  # ten times 16, 32, 64
STEM = 16  # channels of the first convolution of WRN-28-10
MINIMUM = 4  # pixels: the stages halve twice


class WideBlock(nn.Module):
    """BN - ReLU - conv - BN - ReLU - conv, plus the shortcut; nothing after the addition (pre-activation).

    Where the shape changes, the shortcut `downsample` is a 1x1 convolution with the stride, which shares the first
    BN - ReLU (`projected`, Zagoruyko and Komodakis), or average pooling of the input and channels of zeros
    (McDonnell). Without dropout.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, projected: bool) -> None:
        super().__init__()
        changes = stride != 1 or inputs != outputs
        self.projects = changes and projected
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.conv2 = conv3x3(outputs, outputs)
        self.downsample: nn.Module = nn.Identity()
        if self.projects:
            self.downsample = conv1x1(inputs, outputs, stride)
        elif changes:
            self.downsample = nn.Sequential(OrderedDict(pool=average_pool(stride), pad=zero_channels(outputs - inputs)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        active = self.relu1(self.bn1(x))
        out = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        added: Tensor = out + self.downsample(active if self.projects else x)
        return added


def wrn_28_10(num_classes: int, in_shape: Shape) -> nn.Sequential:
    """WRN-28-10: three stages of four blocks, widths 160, 320, 640; 36,479,194 parameters for 3 channels, 10 classes.

    3x3 convolution to 16 channels, the stages (stride 1, 2, 2), BN, ReLU, global average pooling, linear `head`.
    28 counts the first convolution, the 24 of the blocks and the three 1x1 shortcuts. Convolutions are He-normal
    (fan_out), `head` He-normal (fan_in). Input: float (B, *in_shape). Output: logits (B, num_classes).
    """
    require_size("wrn_28_10", in_shape, MINIMUM)
    layers: dict[str, nn.Module] = {
        "stem": conv3x3(in_shape[0], STEM),
        "stages": stages(partial(WideBlock, projected=True), STEM, WIDTHS, (4, 4, 4)),
        "bn": nn.BatchNorm2d(WIDTHS[-1]),
        "relu": nn.ReLU(),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "head": nn.Linear(WIDTHS[-1], num_classes),
    }
    model = nn.Sequential(OrderedDict(layers))
    he_normal_(model, "fan_out")
    return model


def wrn_20_10(num_classes: int, in_shape: Shape) -> nn.Sequential:
    """McDonnell's WRN-20-10: three stages of three blocks; 26,737,120 weights for 3 channels and 10 classes.

    3x3 convolution to 160 channels, the stages (stride 1, 2, 2), BN, ReLU, 1x1 convolution `head` to the classes, BN,
    global average pooling. 20 counts the first convolution, the 18 of the blocks and `head`. All shortcuts are free of
    parameters, so that every weight of the network is one of a convolution; the option `norm` is "plain" unless given.
    Weights are He-normal (fan_in), the scale that binary weights then keep. Input: float (B, *in_shape). Output:
    logits (B, num_classes).
    """
    require_size("wrn_20_10", in_shape, MINIMUM)
    layers: dict[str, nn.Module] = {
        "stem": conv3x3(in_shape[0], WIDTHS[0]),
        "stages": stages(partial(WideBlock, projected=False), WIDTHS[0], WIDTHS, (3, 3, 3)),
        "bn": nn.BatchNorm2d(WIDTHS[-1]),
        "relu": nn.ReLU(),
        "head": conv1x1(WIDTHS[-1], num_classes),
        "head_bn": nn.BatchNorm2d(num_classes),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
    }
    model = nn.Sequential(OrderedDict(layers))
    he_normal_(model)
    return model
