"""Residual networks: ordinary blocks, and blocks with a skip round every convolution for binary activations.

`BLOCKS` has one line for each kind: its skips, activation and shortcut, what stands at the end of the stem and before
the classifier, and its paper. A binary activation must not follow a ReLU, as its sign would be the constant +1; no kind
but `relu` has one.

Sources: K. He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385; Z. Liu et al., "Bi-Real Net",
arXiv:1808.00278; H. Qin et al., "Forward and Backward Information Retention for Accurate Binary Neural Networks"
(IR-Net), arXiv:1909.10788; M. Lin et al., "SiMaN", arXiv:2102.07981; Y. Li et al., "Equal Bits", arXiv:2112.03406.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from equibit.models.initial import he_normal_
from equibit.models.parts import ACTIVATIONS, average_pool, conv1x1, conv3x3, stages, zero_channels
from equibit.models.shapes import Shape, require_size, resolve_stem

WIDTHS = (64, 128, 256, 512)
NARROW = (16, 32, 64)  # of ResNet-20
DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
MINIMUM = {"cifar": 8, "imagenet": 32}  # pixels: the stages halve three times, the imagenet stem twice
MINIMUM_20 = 4  # pixels: three stages halve twice

Shortcut = Callable[[int, int, int], nn.Module]  # input channels, output channels, stride


def projected(inputs: int, outputs: int, stride: int) -> nn.Module:
    """1x1 convolution with the stride, then batch norm (option B of He et al.)."""
    return nn.Sequential(OrderedDict(conv=conv1x1(inputs, outputs, stride), bn=nn.BatchNorm2d(outputs)))


def pooled_projected(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Average pooling, 1x1 convolution, batch norm (Bi-Real Net)."""
    return nn.Sequential(
        OrderedDict(pool=average_pool(stride), conv=conv1x1(inputs, outputs), bn=nn.BatchNorm2d(outputs))
    )


def projected_pooled(inputs: int, outputs: int, stride: int) -> nn.Module:
    """1x1 convolution, batch norm, average pooling (Equal Bits on ImageNet)."""
    return nn.Sequential(
        OrderedDict(conv=conv1x1(inputs, outputs), bn=nn.BatchNorm2d(outputs), pool=average_pool(stride))
    )


def padded(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Every `stride`-th pixel and channels of zeros: no parameters (option A of He et al.)."""
    return nn.Sequential(OrderedDict(sample=nn.AvgPool2d(1, stride), pad=zero_channels(outputs - inputs)))


class _Block(nn.Module):
    """Two 3x3 convolutions with batch norm, the first with the stride, and the shortcut `downsample`."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        changes = stride != 1 or inputs != outputs
        self.downsample = shortcut(inputs, outputs, stride) if changes else nn.Identity()


class OneSkipBlock(_Block):
    """x1 = f(BN(conv(x))); f(BN(conv(x1)) + shortcut(x)): one skip round both convolutions, f the activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut, activation: str) -> None:
        super().__init__(inputs, outputs, stride, shortcut)
        self.act1 = ACTIVATIONS[activation](outputs)
        self.act2 = ACTIVATIONS[activation](outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        x1 = self.act1(self.bn1(self.conv1(x)))
        x2: Tensor = self.act2(self.bn2(self.conv2(x1)) + self.downsample(x))
        return x2


class TwoSkipBlock(OneSkipBlock):
    """x1 = f(BN(conv(x)) + shortcut(x)); f(BN(conv(x1)) + x1): a skip round every convolution.

    Without an activation, and without a binary one before each convolution, the block is linear in x.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        x1 = self.act1(self.bn1(self.conv1(x)) + self.downsample(x))
        x2: Tensor = self.act2(self.bn2(self.conv2(x1)) + x1)
        return x2


class EqualBitsBlock(_Block):
    """x1 = BN(f(conv(x))) + shortcut(x); BN(f(conv(x1))) + x1: a skip round every convolution.

    One activation f stands before both batch norms: its slopes are shared. Nothing follows the additions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut, activation: str) -> None:
        super().__init__(inputs, outputs, stride, shortcut)
        self.act = ACTIVATIONS[activation](outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        x1 = self.bn1(self.act(self.conv1(x))) + self.downsample(x)
        x2: Tensor = self.bn2(self.act(self.conv2(x1))) + x1
        return x2


@dataclass(frozen=True)
class BlockKind:
    """A kind of residual network.

    Attributes:
        block: where the skips are.
        activation: of the blocks, a key of `ACTIVATIONS`.
        shortcut: where the shape changes.
        stem: activation of the stem.
        neck: activation after a batch norm before the classifier; None for neither.
        stem_norm_last: whether the stem's activation stands before its batch norm.
    """

    block: type[OneSkipBlock] | type[EqualBitsBlock]
    activation: str
    shortcut: Shortcut
    stem: str
    neck: str | None = None
    stem_norm_last: bool = False

    def build(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        """One block."""
        return self.block(inputs, outputs, stride, self.shortcut, self.activation)


BLOCKS = {
    "relu": BlockKind(OneSkipBlock, "relu", projected, stem="relu"),  # He et al.
    "hardtanh": BlockKind(OneSkipBlock, "hardtanh", projected, stem="none", neck="none"),  # SiMaN, IR-Net: CIFAR
    "prelu": BlockKind(OneSkipBlock, "prelu", projected, stem="prelu"),  # the first with another activation
    "bireal": BlockKind(TwoSkipBlock, "none", pooled_projected, stem="none"),  # Bi-Real Net
    "bireal_hardtanh": BlockKind(TwoSkipBlock, "hardtanh", projected, stem="hardtanh", neck="none"),  # IR-Net
    "bireal_prelu": BlockKind(TwoSkipBlock, "prelu", projected, stem="prelu", neck="none"),  # SiMaN
    "equal_bits": BlockKind(EqualBitsBlock, "prelu", projected, stem="prelu"),  # Equal Bits
}
EQUAL_BITS_IMAGENET = replace(BLOCKS["equal_bits"], shortcut=projected_pooled, stem_norm_last=True)


def _stem(stem: str, kind: BlockKind, channels: int, width: int) -> nn.Sequential:
    """cifar: 3x3, stride 1. imagenet: 7x7, stride 2, and 3x3 max pooling, stride 2."""
    large = stem == "imagenet"
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False) if large else conv3x3(channels, width),
        bn=nn.BatchNorm2d(width),
        act=ACTIVATIONS[kind.stem](width),
    )
    if kind.stem_norm_last:
        layers.move_to_end("bn")
    if large:
        layers["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(layers)


def _residual(
    kind: BlockKind, stem: str, channels: int, widths: tuple[int, ...], depths: tuple[int, ...], num_classes: int
) -> nn.Sequential:
    """Stem, stages of blocks, global average pooling, neck, linear `head`."""
    layers: dict[str, nn.Module] = {
        "stem": _stem(stem, kind, channels, widths[0]),
        "stages": stages(kind.build, widths[0], widths, depths),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
    }
    if kind.neck is not None:
        layers |= {"bn": nn.BatchNorm1d(widths[-1]), "act": ACTIVATIONS[kind.neck](widths[-1])}
    layers["head"] = nn.Linear(widths[-1], num_classes)
    return nn.Sequential(OrderedDict(layers))


def resnet(num_classes: int, in_shape: Shape, block: str, stem: str, *, name: str) -> nn.Sequential:
    """ResNet-18 and ResNet-34: four stages, widths 64, 128, 256, 512, two or 3, 4, 6, 3 blocks.

    Args:
        num_classes: outputs.
        in_shape: (channels, height, width); the network also takes other sizes of the same channels.
        block: a key of `BLOCKS`; "relu" is the ordinary one (ResNet-18 and -34 have 11,173,962 and 21,282,122
            parameters with the cifar stem, 3 channels and 10 classes), the others are made for binary activations.
        stem: "cifar" (3x3, keeps the size), "imagenet" (7x7 and pooling, a quarter of the size), or "auto": cifar for
            images below 96 pixels.
        name: a key of `DEPTHS`.

    Equal Bits orders its ImageNet network in another way: PReLU before the stem's batch norm, and shortcuts that
    convolve before they pool. Two deviations: SiMaN's ImageNet stem ends in a ReLU and its hardtanh network on CIFAR
    binarises the shortcuts; here the stem has the blocks' PReLU, so that every sign activation sees negative values,
    and a policy decides about shortcuts. Convolutions are He-normal (fan_out), `head` He-normal (fan_in).
    """
    stem = resolve_stem(stem, in_shape)
    require_size(f"{name} with the {stem} stem", in_shape, MINIMUM[stem])
    kind = EQUAL_BITS_IMAGENET if (block, stem) == ("equal_bits", "imagenet") else BLOCKS[block]
    model = _residual(kind, stem, in_shape[0], WIDTHS, DEPTHS[name], num_classes)
    he_normal_(model, "fan_out")
    return model


def resnet20(num_classes: int, in_shape: Shape, block: str) -> nn.Sequential:
    """ResNet-20 for CIFAR: 3x3 stem, three stages of three blocks, widths 16, 32, 64; shortcuts without parameters.

    With 3 channels, 10 classes and block "relu" it has 269,850 parameters: the 269,722 of He et al. and the batch norm
    before `head` that IR-Net and SiMaN add, here in every kind. As in IR-Net, "relu" has no activation after the stem
    and a ReLU after that batch norm; "bireal_hardtanh" is its network for binary activations and "bireal_prelu"
    SiMaN's, whose stem ends in a ReLU where ours has a PReLU. Weights are He-normal (fan_in).

    Args:
        num_classes: outputs.
        in_shape: (channels, height, width); the network also takes other sizes of the same channels.
        block: a key of `BLOCKS`, with the shortcut `padded` in place of its own.
    """
    require_size("resnet20", in_shape, MINIMUM_20)
    kind = replace(BLOCKS[block], shortcut=padded, neck="none")
    if block == "relu":
        kind = replace(kind, stem="none", neck="relu")
    model = _residual(kind, "cifar", in_shape[0], NARROW, (3, 3, 3), num_classes)
    he_normal_(model)
    return model
