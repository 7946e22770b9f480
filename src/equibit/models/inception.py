"""Inception-v3 in a layout for CIFAR.

Sources: C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", arXiv:1512.00567; the layout is
that of the CIFAR-100 network of Y. Li et al., "Equal Bits", arXiv:2112.03406.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from equibit.models.initial import he_normal_
from equibit.models.parts import conv_norm
from equibit.models.shapes import Shape, require_size

FEATURES = 2048  # channels before the classifier
MINIMUM = 9  # pixels: the stem takes two, then two poolings of 3x3 with stride 2

Unit = tuple[int, int | tuple[int, int]]  # output channels and kernel size of a convolution


class Parallel(nn.Module):
    """Branches side by side on the same input; their outputs are joined along the channels."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs of all branches, H', W')."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class _Maker:
    """The modules of the network with one kind of activation; a method for each letter of the paper's figures."""

    def __init__(self, block: str) -> None:
        self.block = block

    def chain(self, inputs: int, *units: Unit, halve: bool = False) -> nn.Sequential:
        """Convolutions, each with batch norm and activation; `halve`: the last has stride 2 and no padding."""
        layers = []
        for index, (outputs, kernel) in enumerate(units, start=1):
            last = halve and index == len(units)
            layers.append(conv_norm(inputs, outputs, kernel, self.block, stride=2 if last else 1, padded=not last))
            inputs = outputs
        return nn.Sequential(*layers)

    def pooled(self, inputs: int, unit: Unit) -> nn.Sequential:
        """3x3 average pooling that keeps the size, and one convolution."""
        return nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), self.chain(inputs, unit))

    def split(self, inputs: int, *units: Unit) -> nn.Sequential:
        """A chain that ends in a 1x3 and a 3x1 convolution side by side."""
        ends = {"wide": self.chain(units[-1][0], (384, (1, 3))), "high": self.chain(units[-1][0], (384, (3, 1)))}
        return nn.Sequential(self.chain(inputs, *units), Parallel(**ends))

    def a(self, inputs: int, pool: int) -> Parallel:
        """3x3 and 5x5; `pool` channels of the pooled branch. 224 + pool channels."""
        return Parallel(
            one=self.chain(inputs, (64, 1)),
            five=self.chain(inputs, (48, 1), (64, 5)),
            stack=self.chain(inputs, (64, 1), (96, 3), (96, 3)),
            pool=self.pooled(inputs, (pool, 3)),
        )

    def b(self, inputs: int) -> Parallel:
        """Halves the size. 480 + inputs channels."""
        return Parallel(
            three=self.chain(inputs, (384, 3), halve=True),
            stack=self.chain(inputs, (64, 1), (96, 3), (96, 3), halve=True),
            pool=nn.MaxPool2d(3, stride=2),
        )

    def c(self, inputs: int, middle: int) -> Parallel:
        """7x7 as 7x1 and 1x7, of `middle` channels. 768 channels."""
        high, wide = (7, 1), (1, 7)
        return Parallel(
            one=self.chain(inputs, (192, 1)),
            seven=self.chain(inputs, (middle, 1), (middle, high), (192, wide)),
            stack=self.chain(inputs, (middle, 1), (middle, high), (middle, wide), (middle, high), (192, wide)),
            pool=self.pooled(inputs, (192, 1)),
        )

    def d(self, inputs: int) -> Parallel:
        """Halves the size. 512 + inputs channels."""
        return Parallel(
            three=self.chain(inputs, (192, 1), (320, 3), halve=True),
            seven=self.chain(inputs, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3), halve=True),
            pool=nn.MaxPool2d(3, stride=2),
        )

    def e(self, inputs: int) -> Parallel:
        """3x3 as 1x3 beside 3x1. 2,048 channels."""
        return Parallel(
            one=self.chain(inputs, (320, 1)),
            three=self.split(inputs, (384, 1)),
            stack=self.split(inputs, (448, 1), (384, 3)),
            pool=self.pooled(inputs, (192, 1)),
        )


def inception_v3(num_classes: int, in_shape: Shape, block: str) -> nn.Sequential:
    """Inception-v3 whose stem has stride 1 throughout: 32x32 images are 30x30, 14x14 and 6x6 in its three parts.

    Stem 32C3 - 32C3 - 64C3 - 80C1 - 192C3 (the last without padding), three modules A, B, four C, D, two E, global
    average pooling, dropout 0.5, linear `head`. The pooled branch of A has a 3x3 convolution where the paper has a 1x1.
    Every convolution has a batch norm and an activation; no biases but the head's, no auxiliary classifier. Weights are
    He-normal (fan_in).

    Args:
        num_classes: outputs.
        in_shape: (channels, height, width); the network also takes other sizes of the same channels.
        block: the activation: "relu" for binary weights alone, "hardtanh" or "prelu" for binary activations.
    """
    require_size("inception_v3", in_shape, MINIMUM)
    make = _Maker(block)
    layers: dict[str, nn.Module] = {
        "stem": make.chain(in_shape[0], (32, 3), (32, 3), (64, 3), (80, 1)),
        "stem_end": conv_norm(80, 192, 3, block, padded=False),
        "a1": make.a(192, 32),
        "a2": make.a(256, 64),
        "a3": make.a(288, 64),
        "b": make.b(288),
        "c1": make.c(768, 128),
        "c2": make.c(768, 160),
        "c3": make.c(768, 160),
        "c4": make.c(768, 192),
        "d": make.d(768),
        "e1": make.e(1280),
        "e2": make.e(2048),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "dropout": nn.Dropout(0.5),
        "head": nn.Linear(FEATURES, num_classes),
    }
    model = nn.Sequential(OrderedDict(layers))
    he_normal_(model)
    return model
