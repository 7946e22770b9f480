"""ReCU: clamping the tails of the weights, so that dead weights move again.

Xu et al., "ReCU: Reviving the Dead Weights in Binary Neural Networks", ICCV 2021, arXiv 2103.12369. Per filter,
w1 = 2 sqrt(2) (w - mean(w)) / sqrt(var(w) + 1e-5) with the unbiased variance; with E = mean|w1| over the layer,
Q = -E ln(2 - 2 tau), the tau-quantile of a Laplace distribution; w2 = clamp(w1, -Q, Q), b = sign(w2). Effective weight
s b, s learned per filter.

Deviations: sign(0) = +1; a filter of zero variance has w1 = 0 and gets no gradient. The recipe divides the
activations by their deviation; that is not part of this method.
"""

import math

import torch
from torch import Tensor, nn

from equibit.activations import sign, straight_through
from equibit.errors import InputError, StateError, between
from equibit.kernels.torch_ops import widen
from equibit.methods.protocol import Method, effective
from equibit.standardize import standardize

_DEVIATION = 2 * math.sqrt(2)  # of w1
_EPS = 1e-5


class ReCU(Method):
    """b = sign(clamp(w1, -Q, Q)), w_eff = s b.

    Gradient: with g = dL/dw_eff, dL/ds = sum g b and dL/dw1 = s g where |w1| <= Q, else 0, and on through mean and
    deviation to w; Q is a constant. tau = A e^u + B at progress u, from tau_min to tau_max. s starts uniform in [0, 1).

    Args:
        tau_min: tau at the start, in (0.5, 1).
        tau_max: tau at the end, in (0.5, 1).

    Attributes:
        learned_scale: s, (filters,); None before `attach`.
        bound: Q / E, a 0-dim buffer that `advance` fills in place.

    Raises:
        InputError: An argument is out of range, or tau_min above tau_max.
    """

    key = "recu"
    bound: Tensor
    learned_scale: nn.Parameter | None

    def __init__(self, tau_min: float = 0.85, tau_max: float = 0.99) -> None:
        super().__init__()
        if between("tau_min", tau_min, 0.5, 1) > between("tau_max", tau_max, 0.5, 1):
            raise InputError(f"tau_min is {tau_min!r} and tau_max {tau_max!r}; tau_max must be at least tau_min.")
        self.tau_min, self.tau_max = tau_min, tau_max
        self.register_parameter("learned_scale", None)
        self.register_buffer("bound", torch.zeros((), dtype=torch.float64), persistent=False)
        self.advance(0.0)

    @property
    def needs_advance(self) -> bool:
        """tau follows the training."""
        return True

    def attach(self, weight: Tensor) -> None:
        """Draws the scale of every filter from torch's global generator."""
        wide = widen(weight)
        self.learned_scale = nn.Parameter(torch.rand(len(wide), dtype=wide.dtype, device=wide.device))
        self.to(wide.dtype)

    def advance(self, progress: float) -> None:
        """Moves tau = A e^u + B with A = (tau_max - tau_min) / (e - 1), B = tau_min - A."""
        tau = self.tau_min + (self.tau_max - self.tau_min) * math.expm1(progress) / math.expm1(1)
        self.bound.fill_(-math.log(2 - 2 * tau))

    @torch.no_grad()
    def assign(self, latent: Tensor) -> Tensor:
        """The sign of w1: the clamp keeps it."""
        return sign(standardize(latent, eps=_EPS).values)

    def factors(self, latent: Tensor, binary: Tensor) -> tuple[Tensor, None]:
        """The learned scale.

        Raises:
            StateError: The method was not attached.
        """
        if self.learned_scale is None:
            raise StateError("method 'recu' learns its scale; call attach(weight) first, as equibit.binarize_ does.")
        return self.learned_scale, None

    def forward(self, latent: Tensor) -> Tensor:
        """s b."""
        w1 = _DEVIATION * standardize(widen(latent), eps=_EPS).values
        limit = self.bound * w1.detach().abs().mean()
        binary = straight_through(sign(w1), w1.clamp(-limit, limit))
        return effective(binary, *self.factors(w1, binary)).to(latent.dtype)

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"tau_min={self.tau_min:g}, tau_max={self.tau_max:g}"
