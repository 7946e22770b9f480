"""The table of networks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from equibit.errors import InputError, unknown
from equibit.models import shallow, vgg
from equibit.models.digits_net import digits_net
from equibit.models.inception import inception_v3
from equibit.models.lenet5 import lenet5
from equibit.models.mobilenet import mobilenet_v1
from equibit.models.nin import nin
from equibit.models.norms import NORMS, make_plain_
from equibit.models.parts import PLAIN_BLOCKS
from equibit.models.resnet import BLOCKS, resnet, resnet20
from equibit.models.shapes import STEMS, image_shape
from equibit.models.shufflenet import shufflenet
from equibit.models.wide_resnet import wrn_20_10, wrn_28_10


@dataclass(frozen=True)
class ModelEntry:
    """One network.

    Attributes:
        name: the key.
        title: one line for people.
        build: called with num_classes, in_shape and every option but `norm` by name.
        options: the allowed values of each option, the default first.
    """

    name: str
    title: str
    build: Callable[..., nn.Module]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_NORM = {"norm": NORMS}
_RESIDUAL = {"block": tuple(BLOCKS), "stem": STEMS, **_NORM}
_PLAIN = {"block": PLAIN_BLOCKS, **_NORM}
_MOBILE = {"block": PLAIN_BLOCKS, "stem": STEMS, **_NORM}
_SHALLOW = {"block": shallow.BLOCKS, **_NORM}

_TABLE = (
    ModelEntry(
        "conv2",
        "Conv-2 for CIFAR: two convolutions, three linear layers; block hardtanh has batch norm, relu has none",
        partial(shallow.shallow, depth=2),
        _SHALLOW,
    ),
    ModelEntry(
        "conv4", "Conv-4 for CIFAR: as conv2, with four convolutions", partial(shallow.shallow, depth=4), _SHALLOW
    ),
    ModelEntry(
        "conv6", "Conv-6 for CIFAR: as conv2, with six convolutions", partial(shallow.shallow, depth=6), _SHALLOW
    ),
    ModelEntry(
        "conv8", "Conv-8 for CIFAR: as conv2, with eight convolutions", partial(shallow.shallow, depth=8), _SHALLOW
    ),
    ModelEntry("digits_net", "small network for the 8x8 digits: three convolutions, batch norm", digits_net, _NORM),
    ModelEntry(
        "inception_v3",
        "Inception-v3 for CIFAR, 94 convolutions; every block but relu takes binary activations",
        inception_v3,
        _PLAIN,
    ),
    ModelEntry("lenet5", "LeNet-5 for MNIST, 32C5-MP2-64C5-MP2-512, batch norm", lenet5, _NORM),
    ModelEntry(
        "mobilenet_v1",
        "MobileNet v1 for CIFAR and ImageNet; every block but relu takes binary activations",
        mobilenet_v1,
        _MOBILE,
    ),
    ModelEntry(
        "nin", "Network in Network for CIFAR, batch norm before every convolution: takes binary activations", nin, _NORM
    ),
    ModelEntry(
        "resnet18",
        "ResNet-18 for CIFAR and ImageNet; every block but relu takes binary activations",
        partial(resnet, name="resnet18"),
        _RESIDUAL,
    ),
    ModelEntry(
        "resnet20",
        "ResNet-20 for CIFAR, widths 16-32-64; every block but relu takes binary activations",
        resnet20,
        {"block": tuple(BLOCKS), **_NORM},
    ),
    ModelEntry(
        "resnet34",
        "ResNet-34 for CIFAR and ImageNet; every block but relu takes binary activations",
        partial(resnet, name="resnet34"),
        _RESIDUAL,
    ),
    ModelEntry(
        "shufflenet",
        "ShuffleNet v1, three groups, for CIFAR and ImageNet; every block but relu takes binary activations",
        shufflenet,
        _MOBILE,
    ),
    ModelEntry(
        "vgg16",
        "VGG-16 with batch norm for CIFAR and ImageNet; every block but relu takes binary activations",
        vgg.vgg16,
        _PLAIN,
    ),
    ModelEntry(
        "vgg_small",
        "VGG-Small for CIFAR: six convolutions, batch norm; every block but relu takes binary activations",
        vgg.vgg_small,
        _PLAIN,
    ),
    ModelEntry(
        "wrn_20_10",
        "McDonnell's wide ResNet for 1-bit weights: 18 convolutions in the blocks, no linear layer",
        wrn_20_10,
        {"norm": tuple(reversed(NORMS))},
    ),
    ModelEntry("wrn_28_10", "wide ResNet, depth 28, ten times the width, for CIFAR", wrn_28_10, _NORM),
)


def entries() -> tuple[ModelEntry, ...]:
    """Every network, by name."""
    return _TABLE


def names() -> list[str]:
    """The names of the networks, sorted."""
    return sorted(entry.name for entry in _TABLE)


def create(name: str, num_classes: int = 10, in_shape: Sequence[int] = (3, 32, 32), **options: str) -> nn.Module:
    """A new float network with random weights, drawn from torch's global generator.

    Args:
        name: one of `names()`.
        num_classes: the number of logits.
        in_shape: (channels, height, width) of an image.
        **options: of that network, see `entries()`. `block` and `stem` as the family describes them; `norm` is
            "affine" or "plain", a batch norm that learns neither scale nor offset.

    Returns:
        A module from float (B, *in_shape) to logits (B, num_classes), its last layer named `head`.

    Raises:
        InputError: unknown name, option or value, or an image too small for the network.
    """
    entry = _entry(name)
    if type(num_classes) is not int or num_classes < 1:
        raise InputError(f"num_classes={num_classes!r}: expected a positive integer.")
    chosen = _complete(entry, options)
    norm = chosen.pop("norm", "affine")
    model = entry.build(num_classes, image_shape(in_shape), **chosen)
    if norm == "plain":
        make_plain_(model)
    return model


def _entry(name: str) -> ModelEntry:
    for entry in _TABLE:
        if entry.name == name:
            return entry
    raise unknown("model", name, names())


def _complete(entry: ModelEntry, options: Mapping[str, str]) -> dict[str, str]:
    """`options` checked against the table, with the default of each that is not given."""
    for option, value in options.items():
        if option not in entry.options:
            raise unknown(f"option of {entry.name}", option, entry.options)
        if value not in entry.options[option]:
            raise unknown(f"{option} of {entry.name}", value, entry.options[option])
    return {option: options.get(option, allowed[0]) for option, allowed in entry.options.items()}
