"""IR-Net: standardised signs with a power-of-two scale (Libra-PB) and a gradient that sharpens (EDE).

Qin et al., "Forward and Backward Information Retention for Accurate Binary Neural Networks", CVPR 2020,
arXiv 1909.10788. Per filter, h = (w - mean(w)) / std(w) with the unbiased deviation, b = sign(h) and
s = 2^round(log2 mean|h|), a shift of bits; effective weight s b.

Deviations: sign(0) = +1; a filter of zero variance has h = 0 and s = 1 and gets no gradient. With
`schedule.method: epoch` t moves once per epoch, as in the authors' code.
"""

import torch
from torch import Tensor

from equibit.activations import ErrorDecay, sign
from equibit.kernels.torch_ops import widen
from equibit.methods.protocol import Method, effective
from equibit.standardize import standardize


class IRNet(Method):
    """b = sign(h), w_eff = s b.

    Gradient: with g = dL/dw_eff, dL/dh = s g k t (1 - tanh(t h)^2), k = max(1 / t, 1), and on through mean and
    deviation to w; s is a constant. t = t_min^(1 - u) t_max^u at progress u.

    Args:
        t_min: t at the start; 0.001 for the paper's ResNet-20 with binary activations.
        t_max: t at the end.

    Raises:
        InputError: An argument is not positive, or t_min above t_max.
    """

    key = "ir_net"

    def __init__(self, t_min: float = 0.1, t_max: float = 10.0) -> None:
        super().__init__()
        self.estimator = ErrorDecay(t_min, t_max)

    @property
    def needs_advance(self) -> bool:
        """t follows the training."""
        return True

    def attach(self, weight: Tensor) -> None:
        """Keeps t in the weight's precision."""
        self.estimator.attach(weight)

    def advance(self, progress: float) -> None:
        """Moves t."""
        self.estimator.advance(progress)

    @torch.no_grad()
    def assign(self, latent: Tensor) -> Tensor:
        """sign(h)."""
        return sign(standardize(latent).values)

    @torch.no_grad()
    def factors(self, latent: Tensor, binary: Tensor) -> tuple[Tensor, None]:
        """The power of two per filter."""
        return shift(standardize(latent).values), None

    def forward(self, latent: Tensor) -> Tensor:
        """s b."""
        h = standardize(widen(latent)).values
        return effective(self.estimator(h), shift(h), None).to(latent.dtype)


@torch.no_grad()
def shift(h: Tensor) -> Tensor:
    """2^round(log2 mean|h|) per filter, 1 where h is 0; shape (filters,)."""
    mean = h.abs().flatten(1).mean(dim=1)
    return torch.where(mean > 0, mean, 1).log2().round().exp2()
