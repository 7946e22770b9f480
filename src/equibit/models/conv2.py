"""Conv-2, the smallest of the shallow CIFAR-10 networks of the lottery-ticket literature."""

from collections import OrderedDict

from torch import nn

from equibit.models.initial import he_normal_
from equibit.models.shapes import Shape, require_size

MINIMUM = 2  # pixels: one 2x2 pooling


def conv2(num_classes: int, in_shape: Shape) -> nn.Sequential:
    """64C3 - 64C3 - MP2 - 256 - 256 - classes, ReLU after every layer but the last; no batch norm, no biases.

    Convolutions are 3x3 with padding 1, so 32x32 gives 64x16x16 = 16,384 features and, with 3 channels and
    10 classes, 4,300,992 weights. They are He-normal (fan_in): without batch norm the initial weights alone
    keep the activations at their size. Input: float (B, *in_shape). Output: logits (B, num_classes).
    Sources: J. Frankle, M. Carbin, "The Lottery Ticket Hypothesis", arXiv:1803.03635; without biases as in
    J. Diffenderfer, B. Kailkhura, "Multi-Prize Lottery Ticket Hypothesis", arXiv:2103.09377, whose fully
    connected layers are written as 1x1 convolutions.
    """
    channels, height, width = in_shape
    require_size("conv2", in_shape, MINIMUM)
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(channels, 64, 3, padding=1, bias=False),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(64, 64, 3, padding=1, bias=False),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(64 * (height // 2) * (width // 2), 256, bias=False),
        "relu3": nn.ReLU(),
        "fc2": nn.Linear(256, 256, bias=False),
        "relu4": nn.ReLU(),
        "head": nn.Linear(256, num_classes, bias=False),
    }
    model = nn.Sequential(OrderedDict(layers))
    he_normal_(model)
    return model
