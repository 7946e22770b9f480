"""The table of networks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from equibit.errors import InputError, unknown
from equibit.models.conv2 import conv2
from equibit.models.digits_net import digits_net
from equibit.models.lenet5 import lenet5
from equibit.models.resnet import BLOCKS, STEMS, resnet18
from equibit.models.shapes import image_shape


@dataclass(frozen=True)
class ModelEntry:
    """One network.

    Attributes:
        name: the key.
        title: one line for people.
        build: called with num_classes, in_shape and every option by name.
        options: the allowed values of each option, the default first.
    """

    name: str
    title: str
    build: Callable[..., nn.Module]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_TABLE = (
    ModelEntry("conv2", "Conv-2 for CIFAR-10: two convolutions, three linear layers, no batch norm", conv2),
    ModelEntry("digits_net", "small network for the 8x8 digits: three convolutions, batch norm", digits_net),
    ModelEntry("lenet5", "LeNet-5 for MNIST, 32C5-MP2-64C5-MP2-512, batch norm", lenet5),
    ModelEntry(
        "resnet18",
        "ResNet-18 for CIFAR and ImageNet; block bireal for binary activations",
        resnet18,
        {"block": tuple(BLOCKS), "stem": STEMS},
    ),
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
        **options: of that network, see `entries()`; resnet18 takes `block` and `stem`.

    Returns:
        A module from float (B, *in_shape) to logits (B, num_classes), its last layer named `head`.

    Raises:
        InputError: unknown name, option or value, or an image too small for the network.
    """
    entry = _entry(name)
    if type(num_classes) is not int or num_classes < 1:
        raise InputError(f"num_classes={num_classes!r}: expected a positive integer.")
    return entry.build(num_classes, image_shape(in_shape), **_complete(entry, options))


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
