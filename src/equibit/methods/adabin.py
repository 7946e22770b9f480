"""AdaBin: two free values per filter in place of -1 and +1.

Tu, Chen, Ren, Wang, "AdaBin: Improving Binary Neural Networks with Adaptive Binary Sets", ECCV 2022,
arXiv 2208.08084. Per filter, beta = mean(w), alpha = the biased deviation of w, h = (w - beta) / alpha, b = sign(h);
effective weight alpha b + beta, one of {beta - alpha, beta + alpha}.

Deviations: sign(0) = +1; alpha is right for grouped convolutions too; a filter of zero variance is its mean, with
alpha = 0 and no gradient. The adaptive binary set of the activations and the Maxout unit are not part of this method.
"""

import torch
from torch import Tensor

from equibit.activations import ErrorDecay, sign
from equibit.kernels.torch_ops import widen
from equibit.methods.protocol import Method, effective
from equibit.standardize import standardize


class AdaBin(Method):
    """b = sign(h), w_eff = alpha b + beta.

    Gradient: with g = dL/dw_eff, db/dh = k t (1 - tanh(t h)^2), k = max(1 / t, 1), and exact through alpha, beta and h.
    With v = g db/dh: dL/dw = v + mean(g - v) + h mean(g b - v h). t = t_min^(1 - u) t_max^u at progress u.

    Args:
        t_min: t at the start.
        t_max: t at the end.

    Raises:
        InputError: An argument is not positive, or t_min above t_max.
    """

    key = "adabin"

    def __init__(self, t_min: float = 1e-3, t_max: float = 10.0) -> None:
        super().__init__()
        self.estimator = ErrorDecay(t_min, t_max)

    @property
    def levels(self) -> str:
        """Two values with an offset."""
        return "offset"

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
        return sign(standardize(latent, biased=True).values)

    @torch.no_grad()
    def factors(self, latent: Tensor, binary: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta."""
        _, mean, deviation = standardize(latent, biased=True)
        return deviation.flatten(), mean.flatten()

    def forward(self, latent: Tensor) -> Tensor:
        """alpha b + beta."""
        h, mean, deviation = standardize(widen(latent), biased=True)
        return effective(self.estimator(h), deviation.flatten(), mean.flatten()).to(latent.dtype)
