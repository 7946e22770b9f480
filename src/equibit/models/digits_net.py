"""digits_net: a small network for the 8x8 digits, our own; it trains in seconds on a CPU."""

from collections import OrderedDict

from torch import nn

from equibit.models.initial import he_normal_
from equibit.models.shapes import Shape, require_size

MINIMUM = 4  # pixels: two 2x2 poolings


def digits_net(num_classes: int, in_shape: Shape) -> nn.Sequential:
    """32C3 - 64C3 - MP2 - 64C3 - MP2 - 128 - classes; batch norm and ReLU after every layer but the last.

    Convolutions are 3x3, padding 1; no biases but the last layer's. Weights are He-normal (fan_in). Input:
    float (B, *in_shape), 8x8 gives 64x2x2 = 256 features. Output: logits (B, num_classes).
    """
    channels, height, width = in_shape
    require_size("digits_net", in_shape, MINIMUM)
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(channels, 32, 3, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(32),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(32, 64, 3, padding=1, bias=False),
        "bn2": nn.BatchNorm2d(64),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),
        "conv3": nn.Conv2d(64, 64, 3, padding=1, bias=False),
        "bn3": nn.BatchNorm2d(64),
        "relu3": nn.ReLU(),
        "pool3": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(64 * (height // 4) * (width // 4), 128, bias=False),
        "bn4": nn.BatchNorm1d(128),
        "relu4": nn.ReLU(),
        "head": nn.Linear(128, num_classes),
    }
    model = nn.Sequential(OrderedDict(layers))
    he_normal_(model)
    return model
