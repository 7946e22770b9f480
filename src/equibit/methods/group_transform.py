"""Group weight transformations (GWT): a differentiable relaxation that ends in binary weights.

Shulman, "Exact Backpropagation in Binary Weighted Networks with Group Weight Transformations", 2021,
arXiv 2107.01400. The weights of a group are split by sign; in training every weight stands for its sign plus kappa
times its distance from the mean of its part, and kappa falls while the network learns. Nothing is detached: the
gradient is the exact derivative. Eval, packing and export take the limit kappa = 0.

Deviations: the formula is inferred from the paper's abstract and from the author's later work (Relational Compression,
2026), where the same operator acts on codes; `form` offers the candidates. 1a is that operator with a continuation, 1b
the same on theta / mean |theta|, so that training starts close to the float network, 2 shrinks the weights to the mean
of their part, 3 is multiplicative. Schedule, groups and scale are our choice. Zero counts as positive (in the author's
code as negative). In eval mode the gradient of the hard weight is the identity STE.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from equibit.activations import sign
from equibit.errors import between, unknown
from equibit.kernels.torch_ops import widen
from equibit.methods.protocol import Method, he_constant, he_scale

_FORMS = ("1a", "1b", "2", "3")
_GROUPS = ("filter", "layer")
_SCALES = ("none", "he")
_FLOOR = 1e-8  # of |theta| in form 3, whose derivative has no bound at 0

# kappa at progress u
_SCHEDULES: Mapping[str, Callable[[float, float, float], float]] = {
    "geometric": lambda start, end, u: start ** (1 - u) * end**u,
    "linear": lambda start, end, u: start + (end - start) * u,
    "cosine": lambda start, end, u: end + (start - end) * (1 + math.cos(math.pi * u)) / 2,
    "constant": lambda start, end, u: start,
}


class GroupTransform(Method):
    """Training: w relaxed by kappa. Eval: a sign(theta), or, in form 2, the mean of the part.

    With theta the latents, s = sign(theta), m = mean |theta| of the group, mu(v) the mean of v over the part (weights
    of the same sign in the same group) that the weight belongs to, k = kappa and a the scale:

        1a  w = a s + k (theta - mu(theta))
        1b  w = a (s + k (theta / m - mu(theta / m)))
        2   w = k theta + (1 - k) mu(theta)
        3   w = a s |theta|^k / mu(|theta|^k), with |theta| at least 1e-8

    Gradient: the derivative of these formulas, by automatic differentiation; s is constant in it. A group of zeros has
    m = 1.

    Args:
        form: Which formula.
        schedule: How kappa moves with progress u: `geometric` (start^(1-u) end^u), `linear`, `cosine`, or `constant`.
        kappa_start: kappa when training starts.
        kappa_end: kappa when it ends.
        group: `filter` or `layer`.
        scale: `he`: a = sqrt(2 / fan_in); `none`: a = 1. Form 2 has none: its means are the scale.

    Raises:
        InputError: An argument is none of its choices; kappa is negative or not finite, or 0 in a geometric schedule.
    """

    key = "group_transform"
    relaxes = True
    kappa: Tensor

    def __init__(
        self,
        form: str = "1b",
        *,
        schedule: str = "geometric",
        kappa_start: float = 1.0,
        kappa_end: float = 0.01,
        group: str = "filter",
        scale: str = "he",
    ) -> None:
        super().__init__()
        for name, given, allowed in (
            ("form", form, _FORMS),
            ("schedule", schedule, _SCHEDULES),
            ("group", group, _GROUPS),
            ("scale", scale, _SCALES),
        ):
            if given not in allowed:
                raise unknown(f"{name} of method 'group_transform'", given, allowed)
        for name, kappa in (("kappa_start", kappa_start), ("kappa_end", kappa_end)):
            if kappa != 0 or schedule == "geometric":
                between(name, kappa, 0, math.inf)
        self.form, self.schedule, self.group, self.scale_kind = form, schedule, group, scale
        self.kappa_start, self.kappa_end = kappa_start, kappa_end
        # A tensor, so that a compiled step is not compiled anew for every value; float64 until the layer is known.
        self.register_buffer("kappa", torch.tensor(self._kappa_at(0), dtype=torch.float64), persistent=False)

    @property
    def levels(self) -> str:
        """`offset` in form 2, whose two values need not be symmetric."""
        return "offset" if self.form == "2" else "two"

    @property
    def needs_advance(self) -> bool:
        """Whether kappa moves."""
        return self.schedule != "constant"

    def attach(self, weight: Tensor) -> None:
        """Gives kappa the type that the layer computes in."""
        self.kappa = self.kappa.to(widen(weight).dtype)

    def advance(self, progress: float) -> None:
        """Moves kappa."""
        self.kappa.fill_(self._kappa_at(progress))

    def _kappa_at(self, progress: float) -> float:
        return _SCHEDULES[self.schedule](self.kappa_start, self.kappa_end, progress)

    @torch.no_grad()
    def assign(self, latent: Tensor) -> Tensor:
        """sign(theta)."""
        return sign(latent)

    def factors(self, latent: Tensor, binary: Tensor) -> tuple[Tensor, Tensor | None]:
        """The constant scale; in form 2 half the difference and half the sum of the two means.

        An empty part counts as the negative of the other.
        """
        if self.form != "2":
            return (he_scale(latent) if self.scale_kind == "he" else latent.new_ones(latent.shape[0])), None
        parts = _Parts(latent, self.group)
        upper, lower = parts.means(latent)
        upper, lower = torch.where(parts.above > 0, upper, -lower), torch.where(parts.below > 0, lower, -upper)
        scale, offset = ((value / 2).flatten().expand(len(latent)) for value in (upper - lower, upper + lower))
        return scale, offset

    def forward(self, latent: Tensor) -> Tensor:
        """The relaxed weight in training, scale * binary + offset in eval."""
        return self._relaxed(widen(latent)).to(latent.dtype) if self.training else super().forward(latent)

    def _relaxed(self, theta: Tensor) -> Tensor:
        scale = he_constant(theta) if self.scale_kind == "he" else 1.0
        parts, k = _Parts(theta, self.group), self.kappa
        if self.form == "3":
            power = theta.abs().clamp(min=_FLOOR).pow(k)
            upper, lower = (torch.where(mean > 0, mean, 1.0) for mean in parts.means(power))  # 0 is an empty part's
            return power * parts.spread(scale / upper, -scale / lower)
        upper, lower = parts.means(theta)
        if self.form == "2":
            return k * theta + parts.spread((1 - k) * upper, (1 - k) * lower)
        if self.form == "1b":
            k = scale * k / parts.magnitude(upper, lower)
        return k * theta + parts.spread(scale - k * upper, -scale - k * lower)

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return (
            f"form={self.form!r}, schedule={self.schedule!r}, kappa_start={self.kappa_start:g}, "
            f"kappa_end={self.kappa_end:g}, group={self.group!r}, scale={self.scale_kind!r}"
        )


class _Parts:
    """The two sign parts of every group: weights with theta >= 0, zeros included, and the others.

    Attributes:
        axes: Dimensions that a group spans.
        positive: 1 in the upper part and 0 in the lower, in the type of theta: on CPUs a product is several times
            faster than `torch.where`, and in the derivative a zero counts as positive too.
        above: Number of weights in the upper part, (filters, 1, ...) or (1, 1, ...).
        below: The same of the lower part.
    """

    def __init__(self, theta: Tensor, group: str) -> None:
        self.axes = tuple(range(1 if group == "filter" else 0, theta.dim()))
        self.positive = theta.detach().clone().ge_(0)
        self.above = self.positive.sum(self.axes, keepdim=True)
        self.below = theta.numel() // max(self.above.numel(), 1) - self.above

    def means(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Means of `values` over the upper and the lower parts; 0 for an empty one."""
        upper = values * self.positive
        lower = (values - upper).sum(self.axes, keepdim=True)
        return upper.sum(self.axes, keepdim=True) / self.above.clamp(min=1), lower / self.below.clamp(min=1)

    def magnitude(self, upper: Tensor, lower: Tensor) -> Tensor:
        """Mean |theta| of every group from the means of its parts; 1 for a group of zeros."""
        mean = (self.above * upper - self.below * lower) / (self.above + self.below)
        return torch.where(mean.square() > torch.finfo(mean.dtype).tiny, mean, 1.0)  # below, 1 / mean^2 overflows

    def spread(self, upper: Tensor, lower: Tensor) -> Tensor:
        """Every weight's value by its part."""
        return torch.addcmul(lower, self.positive, upper - lower)
