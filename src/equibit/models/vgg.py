"""VGG-Small, the plain CIFAR network of the binary-weight literature."""

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from equibit.models.initial import he_normal_
from equibit.models.parts import ACTIVATIONS, conv3x3
from equibit.models.shapes import Shape, require_size

WIDTHS = (128, 128, 256, 256, 512, 512)
MINIMUM = 8  # pixels: three 2x2 poolings
BLOCKS = ("relu", "hardtanh", "prelu")


def vgg_small(num_classes: int, in_shape: Shape, block: str) -> nn.Sequential:
    """128C3 - 128C3 - MP2 - 256C3 - 256C3 - MP2 - 512C3 - 512C3 - MP2 - classes.

    Convolutions are 3x3, padding 1, no biases but the last layer's. The order is convolution, pooling (after every
    second one), batch norm, activation. With 3x32x32 and 10 classes 512x4x4 = 8,192 features and 4,660,106
    parameters. Convolutions are He-normal (fan_out), `head` He-normal (fan_in), where IR-Net takes 0.01 as its
    standard deviation.

    Args:
        num_classes: outputs.
        in_shape: (channels, height, width).
        block: the activation: "relu" for binary weights alone, "hardtanh" (IR-Net) or "prelu" (SiMaN; one slope per
            channel) where the activations are binary too.

    Sources: D. Zhang et al., "LQ-Nets", arXiv:1807.10029; H. Qin et al., "Forward and Backward Information Retention
    for Accurate Binary Neural Networks", arXiv:1909.10788; M. Lin et al., "SiMaN", arXiv:2102.07981.
    """
    channels, height, width = in_shape
    require_size("vgg_small", in_shape, MINIMUM)
    layers: dict[str, nn.Module] = {}
    for index, (inputs, outputs) in enumerate(pairwise((channels, *WIDTHS)), start=1):
        layers[f"conv{index}"] = conv3x3(inputs, outputs)
        if index % 2 == 0:
            layers[f"pool{index}"] = nn.MaxPool2d(2)
        layers |= {f"bn{index}": nn.BatchNorm2d(outputs), f"act{index}": ACTIVATIONS[block](outputs)}
    layers |= {
        "flatten": nn.Flatten(),
        "head": nn.Linear(WIDTHS[-1] * (height // 8) * (width // 8), num_classes),
    }
    model = nn.Sequential(OrderedDict(layers))
    he_normal_(model, "fan_out")
    return model
