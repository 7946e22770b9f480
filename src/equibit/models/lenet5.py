"""LeNet-5 in the form the binary-weight literature uses on MNIST."""

from collections import OrderedDict

from torch import nn

from equibit.models.initial import he_normal_
from equibit.models.shapes import Shape, require_size

MINIMUM = 16  # pixels: 16 - 4 = 12, pooled 6, 6 - 4 = 2, pooled 1


def _pooled(size: int) -> int:
    """Side of the image after a valid 5x5 convolution and 2x2 pooling."""
    return (size - 4) // 2


def lenet5(num_classes: int, in_shape: Shape) -> nn.Sequential:
    """32C5 - MP2 - 64C5 - MP2 - 512 - classes; batch norm and ReLU after every layer but the last.

    Convolutions are 5x5 without padding, so 28x28 gives 64x4x4 = 1,024 features; the order is convolution,
    batch norm, ReLU, pooling; no biases but the last layer's. Weights are He-normal (fan_in). Input: float
    (B, *in_shape). Output: logits (B, num_classes). Sources: the network is Y. LeCun et al.,
    "Gradient-based learning applied to document recognition", 1998; these widths are the ones of F. Li et
    al., "Ternary Weight Networks", arXiv:1605.04711.
    """
    channels, height, width = in_shape
    require_size("lenet5", in_shape, MINIMUM)
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(channels, 32, 5, bias=False),
        "bn1": nn.BatchNorm2d(32),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(32, 64, 5, bias=False),
        "bn2": nn.BatchNorm2d(64),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(64 * _pooled(_pooled(height)) * _pooled(_pooled(width)), 512, bias=False),
        "bn3": nn.BatchNorm1d(512),
        "relu3": nn.ReLU(),
        "head": nn.Linear(512, num_classes),
    }
    model = nn.Sequential(OrderedDict(layers))
    he_normal_(model)
    return model
