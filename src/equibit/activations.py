"""Sign activations with their surrogate gradients, and the one definition of the sign of zero.

A 1W1A layer sees `SignActivation` before its binary weights. Every activation maps to exactly -1 or +1, with
sign(0) = sign(-0.0) = +1, and differs only in the gradient that training sees.
"""

from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equibit.errors import InputError, unknown


def sign(x: Tensor) -> Tensor:
    """+1 where `x >= 0` (so at 0.0 and -0.0 too), else -1; shape and dtype of `x`. No gradient."""
    one = torch.ones((), dtype=x.dtype, device=x.device)
    return torch.where(x >= 0, one, -one)


def straight_through(value: Tensor, surrogate: Tensor) -> Tensor:
    """Exactly `value` in the forward pass, the gradient of `surrogate` in the backward pass.

    `surrogate - surrogate.detach()` is exactly zero for finite input, so no rounding reaches `value`.
    """
    return value.detach() + (surrogate - surrogate.detach())


def ste_sign(x: Tensor) -> Tensor:
    """sign(x); gradient 1 where |x| < 1, else 0 (clipped STE; XNOR-Net, arXiv 1603.05279; Equal Bits, 2112.03406)."""
    return straight_through(sign(x), F.hardtanh(x))  # hardtanh blocks the gradient at |x| = 1, clamp would not


def bireal_sign(x: Tensor) -> Tensor:
    """sign(x); gradient max(0, 2 - 2|x|) (piecewise quadratic surrogate; Bi-Real Net, arXiv 1808.00278)."""
    c = x.clamp(-1, 1)
    return straight_through(sign(x), c * (2 - c.abs()))


class SignActivation(nn.Module):
    """Binarises the input of a 1W1A layer.

    Args:
        pad_value: What a convolution is padded with after the sign: -1, 0 or +1.

    Raises:
        InputError: `pad_value` is none of the three; or the first eager input has no negative value, so that the
            activation would be the constant +1 (as it is after a ReLU).
    """

    key: ClassVar[str]

    def __init__(self, pad_value: float = 0.0) -> None:
        super().__init__()
        if pad_value not in (-1, 0, 1):
            raise InputError(f"pad_value is {pad_value!r}; a sign activation can be padded with -1, 0 or 1.")
        self.pad_value = float(pad_value)
        self.pads: tuple[int, ...] = ()
        self.layer = ""
        self._checked = False

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, channels, ...) -> exactly -1/+1 of the same shape, padded where `pads` says so."""
        if not self._checked and not torch.compiler.is_compiling() and not x.is_meta:
            self._refuse_constant(x)
        x = self.surrogate(x)
        return F.pad(x, self.pads, value=self.pad_value) if self.pads else x

    @staticmethod
    def surrogate(x: Tensor) -> Tensor:
        """The sign with the gradient of this activation."""
        raise NotImplementedError

    def take_over_padding(self, layer: nn.Module) -> None:
        """Lets this module pad for a convolution: the layer itself can only pad with 0, before or after the sign.

        The padding of a transposed convolution crops its output, so there is nothing to take over.
        """
        transposed = getattr(layer, "transposed", False)
        if self.pad_value and getattr(layer, "padding_mode", None) == "zeros" and not transposed:
            self.pads = tuple(layer._reversed_padding_repeated_twice)  # type: ignore[arg-type]

    def _refuse_constant(self, x: Tensor) -> None:
        if x.numel() and not bool((x < 0).any()):
            raise InputError(
                f"the input of the sign activation before layer {self.layer!r} has no negative value, so its sign "
                "is the constant +1 (usually a ReLU stands before it). Use a network block without ReLU, for "
                "example block='bireal', or activation='siman', which standardises its input."
            )
        self._checked = True

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"pad_value={self.pad_value:g}"


class ClippedSign(SignActivation):
    """Key `sign`: `ste_sign`, gradient 1 inside (-1, 1)."""

    key = "sign"
    surrogate = staticmethod(ste_sign)


class BiReal(SignActivation):
    """Key `bireal`: `bireal_sign`, gradient 2 - 2|x| inside (-1, 1)."""

    key = "bireal"
    surrogate = staticmethod(bireal_sign)


REGISTRY = MappingProxyType({cls.key: cls for cls in (BiReal, ClippedSign)})


def resolve(activation: SignActivation | str) -> SignActivation:
    """An activation object from itself or from its key.

    Raises:
        InputError: Neither an activation nor a known key.
    """
    if isinstance(activation, str):
        return create(activation)
    if not isinstance(activation, SignActivation):
        raise InputError(f"{activation!r} is not a sign activation; pass a key such as 'bireal' or an object.")
    return activation


def create(key: str, pad_value: float = 0.0) -> SignActivation:
    """A new activation by key.

    Raises:
        InputError: Unknown key (names the nearest and lists all) or a bad `pad_value`.
    """
    if key not in REGISTRY:
        raise unknown("activation", key, REGISTRY)
    return REGISTRY[key](pad_value=pad_value)
