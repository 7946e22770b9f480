"""Sign activations with their surrogate gradients, and the one definition of the sign of zero.

A 1W1A layer sees `SignActivation` before its binary weights. Every activation maps to exactly -1 or +1, with
sign(0) = sign(-0.0) = +1, and differs only in the gradient that training sees.
"""

import inspect
import math
from types import MappingProxyType
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equibit.errors import InputError, between, unknown
from equibit.kernels.torch_ops import select, widen
from equibit.standardize import standardize


def sign(x: Tensor) -> Tensor:
    """+1 where `x >= 0` (so at 0.0 and -0.0 too), else -1; shape and dtype of `x`. No gradient."""
    return x.detach().clone().ge_(0).mul_(2).sub_(1)  # on CPU a tenth of the time of torch.where


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


class ErrorDecay(nn.Module):
    """sign(x); gradient k t (1 - tanh(t x)^2) with k = max(1 / t, 1) (EDE, the estimator of IR-Net, arXiv 1909.10788).

    t = t_min^(1 - u) t_max^u at progress u: nearly the identity STE at first, a peak of height t_max at 0 in the end.

    Args:
        t_min: t at the start, above 0.
        t_max: t at the end, at least t_min.

    Attributes:
        t: 0-dim buffer that `advance` fills in place: a compiled step reads it anew, and no device is waited for. It
            belongs to no state dict, because it follows from the progress and no binary value depends on it.

    Raises:
        InputError: An argument is out of range.
    """

    t: Tensor

    def __init__(self, t_min: float = 0.1, t_max: float = 10.0) -> None:
        super().__init__()
        if between("t_min", t_min, 0, math.inf) > between("t_max", t_max, 0, math.inf):
            raise InputError(f"t_min is {t_min!r} and t_max is {t_max!r}; t grows, so t_max must be at least t_min.")
        self.t_min, self.t_max = t_min, t_max
        self.register_buffer("t", torch.tensor(t_min, dtype=torch.float64), persistent=False)

    def attach(self, weight: Tensor) -> None:
        """Keeps t in the precision of the weight, at least float32; not every device has float64."""
        self.to(torch.promote_types(weight.dtype, torch.float32))

    def advance(self, progress: float) -> None:
        """Moves t to `progress` in [0, 1]."""
        self.t.fill_(self.t_min ** (1 - progress) * self.t_max**progress)

    def forward(self, x: Tensor) -> Tensor:
        """Exactly -1/+1, shape and dtype of `x`."""
        k = (1 / self.t).clamp(min=1)
        return straight_through(sign(x), k * torch.tanh(self.t * x))

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"t_min={self.t_min:g}, t_max={self.t_max:g}"


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
        self.check(x)
        return self.signs(self.argument(x)).to(x.dtype)

    def check(self, x: Tensor) -> None:
        """Refuses a first eager input whose signs are all +1."""
        if not torch.compiler.is_compiling() and not self._checked and not x.is_meta:
            self._refuse_constant(x)

    def argument(self, x: Tensor) -> Tensor:
        """The values whose signs are taken, of the shape of `x`; an exported file computes them before the node."""
        return x

    def signs(self, x: Tensor) -> Tensor:
        """The signs of what `argument` gave, padded."""
        x = self.surrogate(x)
        return F.pad(x, self.pads, value=self.pad_value) if self.pads else x

    def surrogate(self, x: Tensor) -> Tensor:
        """The sign with the gradient of this activation."""
        raise NotImplementedError

    @property
    def needs_advance(self) -> bool:
        """Whether training must call `equibit.advance` (the activation has a schedule)."""
        return False

    def attach(self, layer: nn.Module) -> None:
        """Makes the state that depends on the layer; called by `binarize_` and `load_packed`."""

    def advance(self, progress: float) -> None:
        """Moves the schedule to `progress` in [0, 1], a pure function of it."""

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

    def surrogate(self, x: Tensor) -> Tensor:
        """`ste_sign`."""
        return ste_sign(x)


class BiReal(SignActivation):
    """Key `bireal`: `bireal_sign`, gradient 2 - 2|x| inside (-1, 1)."""

    key = "bireal"

    def surrogate(self, x: Tensor) -> Tensor:
        """`bireal_sign`."""
        return bireal_sign(x)


class EDE(SignActivation):
    """Key `ede`: sign with the gradient of `ErrorDecay`, whose `t_min` and `t_max` it takes."""

    key = "ede"

    def __init__(self, pad_value: float = 0.0, *, t_min: float = 0.1, t_max: float = 10.0) -> None:
        super().__init__(pad_value)
        self.estimator = ErrorDecay(t_min, t_max)

    @property
    def needs_advance(self) -> bool:
        """t follows the training."""
        return True

    def attach(self, layer: nn.Module) -> None:
        """Keeps t in the layer's precision."""
        self.estimator.attach(next(layer.parameters()))

    def advance(self, progress: float) -> None:
        """Moves t."""
        self.estimator.advance(progress)

    def surrogate(self, x: Tensor) -> Tensor:
        """The sign with the gradient of EDE."""
        return cast(Tensor, self.estimator(x))


class BiHalfSign(SignActivation):
    """Key `bi_half`: signs with equal bits in every channel; gradient 1 inside (-1, 1), that of `sign`.

    In training the floor(n / 2) lowest of a channel's n values, over batch and space, become -1, equal values in
    index order, and the others +1: the rule of Equal Bits (arXiv 2112.03406) on activations. In eval, packed and
    exported the sign is that of x - m, which is +1 exactly where x >= m, with m a running median per channel.

    Attributes:
        running_median: (channels,), float32 or wider; after each training batch 0.9 of itself and 0.1 of the batch's
            median (the mean of the two middle values for an even n). 0 before the first. With several processes each
            has its own batch.
    """

    key = "bi_half"
    momentum: ClassVar[float] = 0.1
    running_median: Tensor

    def __init__(self, pad_value: float = 0.0) -> None:
        super().__init__(pad_value)
        self.axes: int | None = None  # dimensions after the channels; without a layer, all after the second
        self.register_buffer("running_median", torch.zeros(()))

    def attach(self, layer: nn.Module) -> None:
        """One median per input channel; a Linear has its channels last."""
        if isinstance(layer, nn.Linear):
            self.axes, channels = 0, layer.in_features
        else:
            conv = cast(nn.Conv2d, layer)
            self.axes, channels = len(conv.kernel_size), conv.in_channels
        parameter = next(layer.parameters())
        wide = torch.promote_types(parameter.dtype, torch.float32)
        self.running_median = torch.zeros(channels, dtype=wide, device=parameter.device)

    def argument(self, x: Tensor) -> Tensor:
        """x in training, else x - m."""
        return x if self.training else x - self.running_median.reshape(-1, *[1] * self._axes(x))

    def surrogate(self, x: Tensor) -> Tensor:
        """Signs of what `argument` gave; in training by rank."""
        return straight_through(self._by_rank(x), F.hardtanh(x)) if self.training else ste_sign(x)

    @torch.no_grad()
    def _by_rank(self, x: Tensor) -> Tensor:
        axis = x.dim() - 1 - self._axes(x)
        channels_first = widen(x).movedim(axis, 0)
        rows = channels_first.flatten(1) if x.dim() > 1 else channels_first[:, None]  # (channels, batch and space)
        signs = select(rows, rows.shape[1] // 2)
        self._track(rows, signs)
        return signs.view(channels_first.shape).movedim(0, axis)

    def _track(self, rows: Tensor, signs: Tensor) -> None:
        """Moves the running median; `signs` tell the lower half of each row from the upper."""
        upper = rows.masked_fill(signs < 0, torch.inf).amin(dim=1)
        lower = upper if rows.shape[1] % 2 else rows.masked_fill(signs > 0, -torch.inf).amax(dim=1)
        if self.running_median.dim() == 0:
            self.running_median = self.running_median.repeat(len(rows))
        self.running_median.lerp_((0.5 * lower + 0.5 * upper).to(self.running_median.dtype), self.momentum)

    def _axes(self, x: Tensor) -> int:
        return x.dim() - 2 if self.axes is None else self.axes


class Standardised(SignActivation):
    """Key `siman`: `bireal_sign` of every sample, standardised over its channels and space (SiMaN, arXiv 2102.07981).

    The gradient goes through the statistics too. A standardised sample has both signs, so it may come from a ReLU.
    """

    key = "siman"

    def argument(self, x: Tensor) -> Tensor:
        """(x - mean) / sqrt(variance + 1e-5) per sample, the variance unbiased; float32 or wider."""
        return standardize(widen(x), eps=1e-5).values

    def surrogate(self, x: Tensor) -> Tensor:
        """`bireal_sign`."""
        return bireal_sign(x)

    def _refuse_constant(self, x: Tensor) -> None:
        self._checked = True


REGISTRY = MappingProxyType({cls.key: cls for cls in (BiHalfSign, BiReal, ClippedSign, EDE, Standardised)})


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


def create(key: str, pad_value: float = 0.0, **arguments: Any) -> SignActivation:
    """A new activation by key.

    Raises:
        InputError: Unknown key or argument (names the nearest and lists all), or an argument out of range.
    """
    if key not in REGISTRY:
        raise unknown("activation", key, REGISTRY)
    allowed = inspect.signature(REGISTRY[key]).parameters
    for name in arguments:
        if name not in allowed:
            raise unknown(f"argument of activation {key!r}", name, allowed)
    return REGISTRY[key](pad_value=pad_value, **arguments)
