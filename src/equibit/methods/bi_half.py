"""Equal Bits (bi-half): binary weights with an exact share of +1, by optimal transport.

Li, Pintea, van Gemert, "Equal Bits: Enforcing Equally Distributed Binary Network Weights", AAAI 2022,
arXiv 2112.03406. Per filter of n latent weights, the optimal coupling with a two-point target is monotone: the
n_neg = floor((1 - ratio) n) lowest weights become -1, the others +1. Depends on ranks only.

Deviations: counts are exact rationals (the authors' code takes floors of floats); ties go by index, so the counts
hold for every input; with `density` below 1 the middle ranks become 0.
"""

import torch
from torch import Tensor

from equibit.errors import unknown
from equibit.kernels.torch_ops import select, widen
from equibit.methods.counting import CountingRule
from equibit.methods.protocol import Method, he_constant


class BiHalf(Method):
    """b_i = -1 for the n_neg lowest ranks of the filter, +1 for the n_pos highest, 0 between; w_eff = s b.

    Gradient: identity STE, dL/dw = s dL/dw_eff everywhere, pruned entries included. s = sqrt(2 / fan_in).

    Args:
        ratio: Share of +1 among the kept weights of every filter; 0.5 gives equal bits.
        density: Kept share of every filter's weights, in (0, 1].
        scale: Only `he`, the constant sqrt(2 / fan_in), fan_in counting all n weights; `none` for 1.
        rescale: Multiply the scale by 1 / sqrt(density), which keeps the variance of a pruned layer's output.

    Raises:
        InputError: An argument is out of range.
    """

    key = "bi_half"

    def __init__(self, ratio: float = 0.5, *, density: float = 1.0, scale: str = "he", rescale: bool = False) -> None:
        super().__init__()
        if scale not in ("he", "none"):
            raise unknown("scale of method 'bi_half'", scale, ("he", "none"))
        self.ratio, self.density, self.scale_kind, self.rescale = ratio, density, scale, rescale
        self.rule = CountingRule.of(ratio, density)

    @property
    def levels(self) -> str:
        """`three` when pruned."""
        return "three" if self.density < 1 else "two"

    @torch.no_grad()
    def assign(self, latent: Tensor) -> Tensor:
        """-1, 0, +1 by rank within each filter, with exact counts."""
        return self._by_rank(latent, 1.0)

    def factors(self, latent: Tensor, binary: Tensor) -> tuple[Tensor, None]:
        """The constant scale, repeated per filter."""
        return latent.new_full((latent.shape[0],), self._constant(latent)), None

    def forward(self, latent: Tensor) -> Tensor:
        """s b, in one pass over the latents; the gradient of the selection is the identity STE times s."""
        return self._by_rank(widen(latent), self._constant(latent)).to(latent.dtype)

    def _by_rank(self, latent: Tensor, scale: float) -> Tensor:
        counts = self.rule.counts(latent.shape[1:].numel())
        return select(latent, counts.negative, counts.zero, (-scale, 0.0, scale))

    def _constant(self, latent: Tensor) -> float:
        gain = self.density**-0.5 if self.rescale else 1.0
        return gain * he_constant(latent) if self.scale_kind == "he" else gain

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"ratio={self.ratio:g}, density={self.density:g}, scale={self.scale_kind!r}, rescale={self.rescale}"
