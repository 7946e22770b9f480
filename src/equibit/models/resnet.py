"""Residual networks: ordinary blocks, and blocks with a skip round every convolution for binary activations.

Sources: K. He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385; Z. Liu et al.,
"Bi-Real Net: Enhancing the Performance of 1-bit CNNs", arXiv:1808.00278.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from equibit.models.initial import he_normal_
from equibit.models.shapes import Shape, require_size

WIDTHS = (64, 128, 256, 512)
CIFAR_BELOW = 96  # pixels: smaller images get the stem that keeps their size
MINIMUM = {"cifar": 8, "imagenet": 32}  # pixels: the stages halve three times, the imagenet stem twice


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)


class ReluBlock(nn.Module):
    """conv - BN - ReLU - conv - BN, plus the shortcut, then ReLU; one skip per two convolutions.

    Where the shape changes, the shortcut `downsample` is a 1x1 convolution with the stride, then batch norm
    (option B of the source).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                OrderedDict(conv=_conv1x1(inputs, outputs, stride), bn=nn.BatchNorm2d(outputs))
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.downsample(x)
        activated: Tensor = self.relu2(out)
        return activated


class BirealBlock(nn.Module):
    """x1 = BN(conv(x)) + shortcut(x); x2 = BN(conv(x1)) + x1: a skip round every convolution, no activation.

    Without a binary activation before each convolution the block is linear in x: it is made to be binarised
    with `activation="bireal"` or another. No ReLU stands before a convolution, as its sign would be the
    constant +1. Where the shape changes, the shortcut `downsample` is 2x2 average pooling, a 1x1
    convolution and batch norm; an odd row or column at the border is averaged over the pixels there are.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                OrderedDict(
                    pool=nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False),
                    conv=_conv1x1(inputs, outputs),
                    bn=nn.BatchNorm2d(outputs),
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        x1 = self.bn1(self.conv1(x)) + self.downsample(x)
        x2: Tensor = self.bn2(self.conv2(x1)) + x1
        return x2


@dataclass(frozen=True)
class BlockKind:
    """A residual block, and whether the stem before the first one ends in a ReLU."""

    build: Callable[[int, int, int], nn.Module]
    stem_relu: bool


BLOCKS = {"relu": BlockKind(ReluBlock, stem_relu=True), "bireal": BlockKind(BirealBlock, stem_relu=False)}
STEMS = ("auto", "cifar", "imagenet")


def _stem(kind: str, channels: int, width: int, relu: bool) -> nn.Sequential:
    """cifar: 3x3, stride 1. imagenet: 7x7, stride 2, and 3x3 max pooling, stride 2."""
    layers: dict[str, nn.Module] = {
        "conv": _conv3x3(channels, width)
        if kind == "cifar"
        else nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False),
        "bn": nn.BatchNorm2d(width),
    }
    if relu:
        layers["relu"] = nn.ReLU()
    if kind == "imagenet":
        layers["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(OrderedDict(layers))


class ResNet(nn.Module):
    """Stem, four stages of blocks (stride 1, 2, 2, 2), global average pooling, linear `head`."""

    def __init__(self, depths: tuple[int, ...], num_classes: int, channels: int, block: str, stem: str) -> None:
        super().__init__()
        kind = BLOCKS[block]
        self.stem = _stem(stem, channels, WIDTHS[0], kind.stem_relu)
        stages: list[nn.Module] = []
        inputs = WIDTHS[0]
        for index, (outputs, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
            strides = [1 if index == 0 else 2, *[1] * (depth - 1)]
            sizes = [inputs, *[outputs] * (depth - 1)]
            stages.append(
                nn.Sequential(*(kind.build(size, outputs, step) for size, step in zip(sizes, strides, strict=True)))
            )
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes)."""
        features = self.stages(self.stem(images))
        logits: Tensor = self.head(self.flatten(self.pool(features)))
        return logits


def resnet18(num_classes: int, in_shape: Shape, block: str, stem: str) -> ResNet:
    """ResNet-18: four stages of two blocks, widths 64, 128, 256, 512.

    Args:
        num_classes: outputs.
        in_shape: (channels, height, width); the network also takes other sizes of the same channels.
        block: "relu" (the ordinary one; 11,173,962 parameters with the cifar stem, 3 channels and 10
            classes) or "bireal" (for binary activations; as many).
        stem: "cifar" (3x3, keeps the size), "imagenet" (7x7 and pooling, a quarter of the size), or "auto":
            cifar for images below 96 pixels.

    Convolutions are He-normal (fan_out), `head` He-normal (fan_in).
    """
    kind = stem
    if stem == "auto":
        kind = "cifar" if min(in_shape[1:]) < CIFAR_BELOW else "imagenet"
    require_size(f"resnet18 with the {kind} stem", in_shape, MINIMUM[kind])
    model = ResNet((2, 2, 2, 2), num_classes, in_shape[0], block, kind)
    he_normal_(model, "fan_out")
    return model
