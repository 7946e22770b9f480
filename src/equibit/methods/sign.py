"""Sign binarisation with its published variants.

- McDonnell, "Training wide residual networks for deployment using a single bit for each weight", ICLR 2018,
  arXiv 1802.08530: the default here (constant He scale, identity STE).
- Rastegari et al., "XNOR-Net", ECCV 2016, arXiv 1603.05279 (BWN weights):
  `scale="mean_abs", ste="clip", detach_scale=False, project="xnor"`.
- Liu et al., "Bi-Real Net", ECCV 2018, arXiv 1808.00278, and ReActNet, 2003.03488: `"mean_abs", "clip_unscaled"`.

Forward: b = sign(w) with sign(0) = +1, effective weight alpha * b. Deviations: with `density` below 1 the smallest
magnitudes of the layer become 0, and `mean_abs` then averages over the kept weights of the filter, the least-squares
scale of the three-level weight.
"""

import torch
from torch import Tensor

from equibit.activations import sign, straight_through
from equibit.errors import InputError, unknown
from equibit.kernels.torch_ops import select, signed, widen
from equibit.methods.counting import CountingRule
from equibit.methods.protocol import Method, effective, he_constant, he_scale, per_filter

_SCALES = ("none", "he", "mean_abs")
_STES = ("identity", "clip", "clip_unscaled")
_PROJECTIONS = ("none", "xnor")


class Sign(Method):
    """b = sign(w), w_eff = alpha b.

    With g = dL/dw_eff, the gradient dL/dw is alpha g (`identity`), alpha g 1[|w| <= 1] (`clip`) or g 1[|w| <= 1]
    (`clip_unscaled`); with `scale="mean_abs", detach_scale=False` plus b_i / n * sum_j g_j b_j (chain rule through
    alpha = mean|w|).

    Args:
        scale: `he`: the constant sqrt(2 / fan_in); `mean_abs`: mean |w| per filter; `none`: 1.
        ste: Gradient estimator of the sign.
        detach_scale: Whether `mean_abs` is a constant in the backward pass.
        project: `xnor`: before each step subtract the mean over input channels and clamp to [-1, 1].
        density: Kept share of the layer's weights, by magnitude; the rest is 0.

    Raises:
        InputError: An argument is none of its choices or out of range.
    """

    key = "sign"

    def __init__(
        self,
        *,
        scale: str = "he",
        ste: str = "identity",
        detach_scale: bool = True,
        project: str = "none",
        density: float = 1.0,
    ) -> None:
        super().__init__()
        for name, given, allowed in (
            ("scale", scale, _SCALES),
            ("ste", ste, _STES),
            ("project", project, _PROJECTIONS),
        ):
            if given not in allowed:
                raise unknown(f"{name} of method 'sign'", given, allowed)
        self.scale_kind, self.ste, self.project, self.density = scale, ste, project, density
        self.detach_scale = detach_scale
        self.rule = CountingRule.of(1, density)  # every kept weight counts as positive

    @property
    def levels(self) -> str:
        """`three` when pruned."""
        return "three" if self.density < 1 else "two"

    @property
    def needs_advance(self) -> bool:
        """XNOR-Net projects its latents before every step."""
        return self.project == "xnor"

    def attach(self, weight: Tensor) -> None:
        """Checks that XNOR's centring has more than one input channel to centre over."""
        if self.project == "xnor" and weight.shape[1] == 1:
            raise InputError(
                f"project='xnor' subtracts the mean over input channels, but layer {self.layer!r} has one input "
                "channel per filter, so all its weights would become 0. Use an override for this layer."
            )

    @torch.no_grad()
    def project_(self, latent: Tensor) -> None:
        """XNOR-Net, section 3: w <- clamp(w - mean over input channels, -1, 1), in place."""
        if self.project == "xnor":
            latent.sub_(latent.mean(dim=1, keepdim=True)).clamp_(-1, 1)

    @torch.no_grad()
    def assign(self, latent: Tensor) -> Tensor:
        """sign(w); with density < 1 the floor((1 - density) N) smallest |w| of the layer are 0."""
        binary = sign(latent)
        if self.density == 1:
            return binary
        layer = latent.reshape(1, -1)
        kept = select(layer, self.rule.counts(latent.numel()).zero, levels=(0.0, 1.0, 1.0), magnitude=True)
        return binary.masked_fill_(kept.view(latent.shape) == 0, 0)

    def factors(self, latent: Tensor, binary: Tensor) -> tuple[Tensor, None]:
        """alpha per filter."""
        if self.scale_kind == "he":
            return he_scale(latent), None
        if self.scale_kind == "none":
            return latent.new_ones(latent.shape[0]), None
        products = ((latent.detach() if self.detach_scale else latent) * binary).flatten(1)  # |w|, gradient b
        return products.sum(dim=1) / binary.abs().flatten(1).sum(dim=1).clamp(min=1), None

    def estimate(self, latent: Tensor, binary: Tensor) -> Tensor:
        """Identity, or clipped at |w| <= 1 (clamp passes the gradient at the border)."""
        return straight_through(binary, latent if self.ste == "identity" else latent.clamp(-1, 1))

    def forward(self, latent: Tensor) -> Tensor:
        """alpha b; `clip_unscaled` keeps alpha out of the gradient (Bi-Real Net's estimator)."""
        wide = widen(latent)
        if self.ste == "identity" and self.scale_kind != "mean_abs" and self.density == 1:
            return signed(wide, he_constant(wide) if self.scale_kind == "he" else 1.0).to(latent.dtype)
        if self.ste != "clip_unscaled":
            return super().forward(latent)
        binary = self.assign(wide)
        scale, _ = self.factors(wide, binary)
        weight = straight_through(effective(binary, scale, None), wide.clamp(-1, 1))
        if not self.detach_scale:  # the scale's own gradient, without the value being counted twice
            weight = weight + (per_filter(scale - scale.detach(), binary) * binary)
        return weight.to(latent.dtype)

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return (
            f"scale={self.scale_kind!r}, ste={self.ste!r}, detach_scale={self.detach_scale}, "
            f"project={self.project!r}, density={self.density:g}"
        )
