"""Network in Network for CIFAR, in the order of layers that XNOR-Net gives to binary networks.

Sources: M. Lin et al., "Network In Network", arXiv:1312.4400; M. Rastegari et al., "XNOR-Net", arXiv:1603.05279.
"""

from collections import OrderedDict

from torch import nn

from equibit.models.initial import he_normal_
from equibit.models.shapes import Shape, require_size

STEM = 192  # channels of the first convolution
GROUPS = (  # (channels, kernel size) of the convolutions between two poolings
    ((160, 1), (96, 1)),
    ((192, 5), (192, 1), (192, 1)),
    ((192, 3), (192, 1)),
)
MINIMUM = 4  # pixels: two poolings halve


def nin(num_classes: int, in_shape: Shape) -> nn.Sequential:
    """192C5 - 160C1 - 96C1 - MP3/2 - 192C5 - 192C1 - 192C1 - AP3/2 - 192C3 - 192C1 - classes C1, averaged.

    Every convolution but the first stands after a batch norm and before a ReLU, `head` without the ReLU: the batch norm
    centres what the ReLU before it made positive, so that binary activations work and there is one kind of block. Two
    deviations from the XNOR-Net port of this network: no dropout, which together with a sign would leave three values,
    and no ReLU after `head`, which would hold logits at zero. No biases but the head's. Weights are He-normal (fan_in).
    With 3 channels and 10 classes 968,778 parameters. Input: float (B, *in_shape); the network also takes other sizes
    of the same channels. Output: logits (B, num_classes).
    """
    require_size("nin", in_shape, MINIMUM)
    stem = nn.Conv2d(in_shape[0], STEM, 5, padding=2, bias=False)
    layers: dict[str, nn.Module] = {"conv1": stem, "bn1": nn.BatchNorm2d(STEM), "relu1": nn.ReLU()}
    pools = (nn.MaxPool2d(3, stride=2, padding=1), nn.AvgPool2d(3, stride=2, padding=1), None)
    inputs, index = STEM, 1
    for group, pool in zip(GROUPS, pools, strict=True):
        for outputs, kernel in group:
            index += 1
            layers |= {
                f"bn{index}": nn.BatchNorm2d(inputs),
                f"conv{index}": nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
                f"relu{index}": nn.ReLU(),
            }
            inputs = outputs
        if pool is not None:
            layers[f"pool{index}"] = pool
    layers |= {
        f"bn{index + 1}": nn.BatchNorm2d(inputs),
        "head": nn.Conv2d(inputs, num_classes, 1),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
    }
    model = nn.Sequential(OrderedDict(layers))
    he_normal_(model)
    return model
