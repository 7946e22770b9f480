"""VGG-16, and VGG-Small, the plain CIFAR network of the binary-weight literature."""

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from equibit.models.initial import he_normal_
from equibit.models.parts import ACTIVATIONS, conv3x3, conv_norm
from equibit.models.shapes import Shape, require_size

WIDTHS = (128, 128, 256, 256, 512, 512)
MINIMUM = 8  # pixels: three 2x2 poolings
WIDTHS_16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # between the poolings
HIDDEN_16 = 4096  # units of the two hidden linear layers
MINIMUM_16 = 32  # pixels: five 2x2 poolings


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


def vgg16(num_classes: int, in_shape: Shape, block: str) -> nn.Sequential:
    """VGG-16: 64 64 P 128 128 P 256 256 256 P 512 512 512 P 512 512 512 P - 4096 - 4096 - classes.

    Convolutions are 3x3, padding 1, each with a batch norm and an activation (configuration D with batch norm); P is
    2x2 max pooling. With 3x32x32 there are 512 features, with 3x224x224 the 25,088 of the paper. No biases but the
    last layer's. Convolutions are He-normal (fan_out), linear layers He-normal (fan_in).

    Args:
        num_classes: outputs.
        in_shape: (channels, height, width).
        block: the activation. With "relu" (binary weights alone) a dropout of 0.5 follows both hidden linear layers;
            with "hardtanh" and "prelu" (binary activations) a batch norm stands before their activation instead, as
            the zeros of a dropout have no sign.

    Sources: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    arXiv:1409.1556; the CIFAR-100 network of Y. Li et al., "Equal Bits", arXiv:2112.03406, has these layers.
    """
    channels, height, width = in_shape
    require_size("vgg16", in_shape, MINIMUM_16)
    layers: dict[str, nn.Module] = {}
    index = 0
    for group in WIDTHS_16:
        for outputs in group:
            index += 1
            layers[f"conv{index}"] = conv_norm(channels, outputs, 3, block)
            channels = outputs
        layers[f"pool{index}"] = nn.MaxPool2d(2)
    layers |= {
        "flatten": nn.Flatten(),
        "fc1": _hidden(channels * (height // 32) * (width // 32), block),
        "fc2": _hidden(HIDDEN_16, block),
        "head": nn.Linear(HIDDEN_16, num_classes),
    }
    model = nn.Sequential(OrderedDict(layers))
    he_normal_(model, "fan_out")
    return model


def _hidden(inputs: int, block: str) -> nn.Sequential:
    """A hidden linear layer of VGG-16."""
    layers = OrderedDict[str, nn.Module](fc=nn.Linear(inputs, HIDDEN_16, bias=False))
    if block == "relu":
        layers |= {"act": nn.ReLU(), "dropout": nn.Dropout(0.5)}
    else:
        layers |= {"bn": nn.BatchNorm1d(HIDDEN_16), "act": ACTIVATIONS[block](HIDDEN_16)}
    return nn.Sequential(layers)
