"""Parts that several families of networks share."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import pairwise

from torch import nn

ACTIVATIONS: Mapping[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "relu": lambda channels: nn.ReLU(),
    "hardtanh": lambda channels: nn.Hardtanh(),
    "prelu": nn.PReLU,  # one slope per channel, 0.25 at the start
}
PLAIN_BLOCKS = ("relu", "hardtanh", "prelu")  # of networks whose blocks differ in their activation only


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution, padding 1, no bias: H becomes ceil(H / stride)."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """1x1 convolution, no bias: H becomes ceil(H / stride)."""
    return nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    block: str,
    *,
    stride: int = 1,
    groups: int = 1,
    padded: bool = True,
) -> nn.Sequential:
    """Convolution without bias, batch norm, activation `block`: H becomes ceil(H / stride) where it is padded."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (height // 2, width // 2) if padded else 0
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), act=ACTIVATIONS[block](outputs)))


def average_pool(stride: int) -> nn.AvgPool2d:
    """Average pooling to ceil(H / stride); an odd row or column at the border is averaged over the pixels there are."""
    return nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)


def zero_channels(extra: int) -> nn.Module:
    """Appends `extra` channels of zeros."""
    return nn.ZeroPad3d((0, 0, 0, 0, 0, extra))  # pads the last three axes, which are C, H, W here


def stages(
    block: Callable[[int, int, int], nn.Module],
    inputs: int,
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    first: int = 1,
) -> nn.Sequential:
    """Stages of residual blocks; each stage but the first begins with stride 2.

    Args:
        block: from (input channels, output channels, stride) to a block.
        inputs: channels before the first stage.
        widths: channels of each stage.
        depths: blocks in each stage.
        first: stride of the first stage.
    """
    return nn.Sequential(
        *(
            nn.Sequential(
                block(before, width, 2 if index else first), *(block(width, width, 1) for _ in range(depth - 1))
            )
            for index, ((before, width), depth) in enumerate(zip(pairwise((inputs, *widths)), depths, strict=True))
        )
    )
