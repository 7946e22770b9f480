"""SiMaN: binary weights from magnitudes instead of signs.

Lin, Ji, Xu, Zhang, Chao, Lin, Shao, "SiMaN: Sign-to-Magnitude Network Binarization", IEEE TPAMI 45(5), 2023,
arXiv 2102.07981. Per filter, the weights of large magnitude become +1 and those of small magnitude -1, whatever their
signs. The filter is centred first; a projection before every step clips the magnitudes of a layer.

Deviations: exactly floor(n / 2) weights become +1, ties go by index (the authors' strict comparison with the median can
give fewer); the projection is kept out of the forward pass, and the code is that of the present latents, also in eval
(the authors keep that of the last step); a weight equal to its filter's mean counts as positive in the projection.
`mode="optimal"` is the paper's objective, which the authors' code replaces by the half.
"""

from typing import Any

import torch
from torch import Tensor, nn

from equibit.errors import InputError, StateError, unknown
from equibit.kernels.torch_ops import quantiles, select, widen
from equibit.methods.counting import share
from equibit.methods.protocol import Method, effective, per_filter
from equibit.standardize import centre

_MODES = ("half", "optimal")
_EPS = 1e-5  # added to the variance of a filter


class SiMaN(Method):
    """b_i = +1 where |w_i - mean(w)| is among the L largest of its filter, else -1; w_eff = a b, a learned per filter.

    Gradient: the identity STE from b to |c / s|, with c = w - mean(w) and s^2 = sum(c^2) / (n - 1) + 1e-5, and the
    exact derivative from there: with u = a dL/dw_eff sgn(c), where sgn(0) = 0,

        dL/dw = (u - mean(u) - c sum(u c) / ((n - 1) s^2)) / s.

    The learned scale starts as mean |w|; it and the latents get no weight decay.

    Projection, before every step: w <- sgn(c) clamp(|c|, lo, hi), with lo and hi the q- and (1 - q)-quantiles of |c|
    over the layer, q = clip (1 - progress), and sgn(0) = +1.

    Args:
        mode: `half`: L = floor(n / 2), one bit of entropy per weight; `optimal`: the L that maximises the cosine
            between |c| and the 0/1 code, sum of the L largest |c| / sqrt(L), the smallest such L.
        clip: Share of the layer's weights that the projection clips at either end when training starts, in [0, 0.5).

    Raises:
        InputError: An argument is none of its choices or out of range.
    """

    key = "siman"
    forbids_l2 = True
    learned_scale: nn.Parameter | None

    def __init__(self, mode: str = "half", *, clip: float = 0.15) -> None:
        super().__init__()
        if mode not in _MODES:
            raise unknown("mode of method 'siman'", mode, _MODES)
        if share("clip", clip, zero=True) >= 0.5:
            raise InputError(f"clip is {clip!r}; it must lie in [0, 0.5), so that the two ends do not meet.")
        self.mode, self.clip = mode, clip
        self.clipped = clip  # share at either end, at the present progress
        self.register_parameter("learned_scale", None)

    @property
    def needs_advance(self) -> bool:
        """The latents are projected before every step."""
        return True

    def attach(self, weight: Tensor) -> None:
        """Starts the learned scale as mean |w| per filter."""
        self.learned_scale = nn.Parameter(widen(weight).abs().flatten(1).mean(dim=1))

    def advance(self, progress: float) -> None:
        """The clipped share falls in a straight line to 0."""
        self.clipped = self.clip * (1 - progress)

    @torch.no_grad()
    def project_(self, latent: Tensor) -> None:
        """Centres each filter and clips the magnitudes at two quantiles of the layer, in place."""
        deviation, _ = centre(widen(latent))
        magnitude = deviation.abs()
        low, high = quantiles(magnitude, (self.clipped, 1 - self.clipped))
        deviation.add_(0.0)  # which makes 0.0 of -0.0
        latent.copy_(torch.copysign(magnitude.clamp_(low, high), deviation, out=deviation))

    @torch.no_grad()
    def assign(self, latent: Tensor) -> Tensor:
        """+1 for the weights farthest from their filter's mean, on either side."""
        deviation, _ = centre(latent)
        if self.mode == "optimal":
            return _closest_in_angle(deviation.abs_())
        n = latent[0].numel()
        return select(deviation, n - n // 2, magnitude=True)

    def factors(self, latent: Tensor, binary: Tensor) -> tuple[Tensor, None]:
        """The learned scale.

        Raises:
            StateError: `attach` was not called.
        """
        if self.learned_scale is None:
            raise StateError("method 'siman' has no scale yet; call attach(weight), as equibit.binarize_ does.")
        return self.learned_scale.to(latent.dtype), None

    def forward(self, latent: Tensor) -> Tensor:
        """a b."""
        wide = widen(latent)
        binary = self.assign(wide)
        weight: Tensor = torch.ops.equibit.siman.default(wide, binary, self.factors(wide, binary)[0])
        return weight.to(latent.dtype)

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"mode={self.mode!r}, clip={self.clip:g}"


def _closest_in_angle(magnitude: Tensor) -> Tensor:
    """The code b of -1 and +1 whose image (b + 1) / 2 has the smallest angle with the magnitudes of its filter."""
    ordered, order = magnitude.flatten(1).sort(dim=1, stable=True)
    n = ordered.shape[1]
    counts = torch.arange(1, n + 1, device=magnitude.device)
    sums = ordered.flip(1).cumsum(dim=1, dtype=torch.float64)  # of the L largest, L = 1..n
    best = (sums / counts.double().sqrt()).argmax(dim=1, keepdim=True) + 1  # the first of equal maxima
    ranked = torch.where(counts > n - best, 1.0, -1.0).to(magnitude.dtype)
    return torch.empty_like(ordered).scatter_(1, order, ranked).view(magnitude.shape)


def _gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
    """The formula of `SiMaN`; automatic differentiation would make twice as many passes over the weights."""
    latent, binary, scale = ctx.saved_tensors
    axes, freedom = tuple(range(1, latent.dim())), max(latent[0].numel() - 1, 1)
    deviation, _ = centre(latent)
    norm: Tensor = torch.linalg.vector_norm(deviation, dim=axes, keepdim=True)
    variance = norm.square() / freedom + _EPS
    u = deviation.sgn() * gradient
    slope = (u * deviation).sum(axes, keepdim=True) / (freedom * variance)
    u = (u - u.mean(axes, keepdim=True)).addcmul_(deviation, slope, value=-1)
    return u * (per_filter(scale, u) * variance.rsqrt()), None, (gradient * binary).sum(axes)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _effective(latent: Tensor, binary: Tensor, scale: Tensor) -> Tensor:
    return effective(binary, scale, None)


torch.library.define("equibit::siman", "(Tensor latent, Tensor binary, Tensor scale) -> Tensor")
torch.library.impl("equibit::siman", "CompositeExplicitAutograd", _effective)
torch.library.register_fake("equibit::siman", _effective)
torch.library.register_autograd("equibit::siman", _gradient, setup_context=_keep)
