"""The table of methods."""

import inspect
from types import MappingProxyType
from typing import Any

from equibit.errors import InputError, unknown
from equibit.methods.adabin import AdaBin
from equibit.methods.bi_half import BiHalf
from equibit.methods.group_transform import GroupTransform
from equibit.methods.ir_net import IRNet
from equibit.methods.multi_prize import MultiPrize
from equibit.methods.protocol import Method
from equibit.methods.recu import ReCU
from equibit.methods.reste import ReSTE
from equibit.methods.sign import Sign
from equibit.methods.siman import SiMaN

REGISTRY = MappingProxyType(
    {cls.key: cls for cls in (AdaBin, BiHalf, GroupTransform, IRNet, MultiPrize, ReCU, ReSTE, Sign, SiMaN)}
)


def names() -> list[str]:
    """Keys of all methods, sorted."""
    return sorted(REGISTRY)


def create(key: str, **arguments: Any) -> Method:
    """A new method by key.

    Raises:
        InputError: Unknown key or argument (names the nearest and lists all), or an argument out of range.
    """
    if key not in REGISTRY:
        raise unknown("method", key, REGISTRY)
    allowed = inspect.signature(REGISTRY[key]).parameters
    for name in arguments:
        if name not in allowed:
            raise unknown(f"argument of method {key!r}", name, allowed)
    return REGISTRY[key](**arguments)


def resolve(method: Method | str) -> Method:
    """A method object from itself or from its key.

    Raises:
        InputError: Neither a method nor a known key.
    """
    if isinstance(method, str):
        return create(method)
    if not isinstance(method, Method):
        raise InputError(f"{method!r} is not a method; pass a key such as 'bi_half' or an object such as BiHalf().")
    return method
