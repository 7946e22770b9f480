"""ReSTE: a gradient that goes from the identity to that of the sign by a power function.

Wu, Zheng, Liu, Zheng, "Estimator Meets Equilibrium Perspective: A Rectified Straight Through Estimator for Binary
Neural Networks Training", ICCV 2023, arXiv 2308.06689. b = sign(w), effective weight alpha b with alpha = mean|w| of
the layer. Backward, b counts as sign(w) |w|^(1/o), whose slope is cut where it would be too large or is too far out.

Deviation: sign(0) = +1, as also in the gradient of |w|.
"""

import math

import torch
from torch import Tensor

from equibit.activations import sign, straight_through
from equibit.errors import InputError, between
from equibit.methods.protocol import Method

_NEAR, _FAR = 0.1, 1.5  # |w| up to which the slope is constant, and from which on it is 0


class ReSTE(Method):
    """b = sign(w), w_eff = alpha b, alpha = mean|w| of the layer.

    Gradient: with g = dL/dw_eff, dL/dw = alpha g e(w) + b / N sum g b, the last term through alpha, over all N weights
    of the layer. e(w) = |w|^(1/o - 1) / o where 0.1 < |w| <= 1.5, the constant 0.1^(1/o - 1) where |w| <= 0.1, and 0
    beyond 1.5. o = 1 + (1 - cos(pi u / 2)) (o_end - 1) at progress u.

    Args:
        o_end: o at the end, at least 1; 1 is the STE clipped at 1.5.

    Attributes:
        power: 1 / o, a 0-dim buffer that `advance` fills in place.

    Raises:
        InputError: o_end is out of range.
    """

    key = "reste"
    power: Tensor

    def __init__(self, o_end: float = 3.0) -> None:
        super().__init__()
        if between("o_end", o_end, 0, math.inf) < 1:
            raise InputError(f"o_end is {o_end!r}; o starts at 1 and grows, so o_end must be at least 1.")
        self.o_end = o_end
        self.register_buffer("power", torch.ones((), dtype=torch.float64), persistent=False)

    @property
    def needs_advance(self) -> bool:
        """o follows the training."""
        return True

    def attach(self, weight: Tensor) -> None:
        """Keeps 1 / o in the weight's precision, at least float32."""
        self.to(torch.promote_types(weight.dtype, torch.float32))

    def advance(self, progress: float) -> None:
        """Moves o."""
        self.power.fill_(1 / (1 + (1 - math.cos(math.pi * progress / 2)) * (self.o_end - 1)))

    @torch.no_grad()
    def assign(self, latent: Tensor) -> Tensor:
        """sign(w)."""
        return sign(latent)

    def factors(self, latent: Tensor, binary: Tensor) -> tuple[Tensor, None]:
        """mean|w| of the layer, repeated per filter."""
        return (latent * binary).mean().expand(len(latent)), None  # |w|, gradient b

    def estimate(self, latent: Tensor, binary: Tensor) -> Tensor:
        """b with the slope e(w)."""
        return straight_through(binary, self._slope(latent.detach().abs()) * latent)

    def _slope(self, magnitude: Tensor) -> Tensor:
        slope = magnitude.clamp(min=_NEAR).pow_(self.power - 1).mul_(self.power)
        near = _NEAR ** (self.power - 1)
        return slope.masked_fill_(magnitude <= _NEAR, near).masked_fill_(magnitude > _FAR, 0)

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"o_end={self.o_end:g}"
