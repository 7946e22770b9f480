"""What every binarisation method is: a module from latent weights to binary weights and their scale."""

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from equibit.errors import InputError
from equibit.kernels.torch_ops import widen


class Method(nn.Module):
    """Turns a layer's latent weight, filters in dim 0, into its effective weight `scale * binary + offset`.

    A subclass implements `assign` and `factors`, and `forward` where training differs from the hard value.
    `binarize_` copies the object for every layer, so state lives in ordinary parameters and buffers.

    Attributes:
        key: Name in the registry.
        forbids_l2: Whether the latents (and learned scales) must get no weight decay.
        relaxes: Whether training uses a relaxation of the binary weight; eval mode never does.
        freezes_latent: Whether the latent stays as it starts, and parameters of the method are trained instead.
        layer: Name of the layer that holds this copy, for error messages.
    """

    key: ClassVar[str]
    forbids_l2: ClassVar[bool] = False
    relaxes: ClassVar[bool] = False
    freezes_latent: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.layer = ""

    @property
    def levels(self) -> str:
        """`two` (+-scale), `offset` (two values with an offset per filter) or `three` (pruned weights are 0)."""
        return "two"

    @property
    def needs_advance(self) -> bool:
        """Whether training must call `equibit.advance` (the method has a schedule or a projection)."""
        return False

    def initial(self, weight: Tensor) -> Tensor:
        """The latent that training starts from, given the network's weight, which is not changed; it by default."""
        return weight

    def attach(self, weight: Tensor) -> None:
        """Makes the state that depends on the layer's weight; called once by `binarize_`."""

    def advance(self, progress: float) -> None:
        """Moves the schedule to `progress` in [0, 1], a pure function of it."""

    @classmethod
    def advance_together(cls, methods: Sequence[Self]) -> None:
        """What is decided over all layers of a model with this method, after each has moved its schedule."""

    def project_(self, latent: Tensor) -> None:
        """Projects the latent weight in place, before a training step."""

    def assign(self, latent: Tensor) -> Tensor:
        """The binary weight of a float32 or float64 latent: exactly -1/+1, 0 only where pruned. No gradient."""
        raise NotImplementedError

    def factors(self, latent: Tensor, binary: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scale and offset, one value per filter, of a latent whose binary weight is given."""
        raise NotImplementedError

    @torch.no_grad()
    def binary(self, latent: Tensor) -> Tensor:
        """Exactly -1/+1 (0 only where pruned), shape and dtype of `latent`.

        Raises:
            InputError: The latent holds NaN (checked in eager mode only), or has fewer than two dimensions.
        """
        self.check(latent)
        return self.assign(widen(latent)).to(latent.dtype)

    @torch.no_grad()
    def scale(self, latent: Tensor) -> Tensor:
        """Scale per filter, shape (filters,), float32 or wider; a layer-wide scale is repeated."""
        wide = widen(latent)
        return self.factors(wide, self.assign(wide))[0]

    @torch.no_grad()
    def offset(self, latent: Tensor) -> Tensor | None:
        """Offset per filter, shape (filters,), or None where the method has none."""
        wide = widen(latent)
        return self.factors(wide, self.assign(wide))[1]

    def forward(self, latent: Tensor) -> Tensor:
        """The effective weight, shape and dtype of `latent`; its gradient is the method's."""
        wide = widen(latent)
        binary = self.assign(wide)
        scale, offset = self.factors(wide, binary)
        return effective(self.estimate(wide, binary), scale, offset).to(latent.dtype)

    def estimate(self, latent: Tensor, binary: Tensor) -> Tensor:
        """`binary` with the gradient estimator of the method; identity STE unless overridden."""
        return binary + (latent - latent.detach())

    def check(self, latent: Tensor, what: str = "latent weight") -> None:
        """Refuses what no method can binarise; silent while a graph is traced."""
        where = f" of layer {self.layer!r}" if self.layer else ""
        if latent.dim() < 2 or not latent.is_floating_point():
            raise InputError(
                f"the {what}{where} is {latent.dtype} of shape {tuple(latent.shape)}; "
                "a method takes floating-point weights with filters in dim 0 and at least one more dimension."
            )
        if not torch.compiler.is_compiling() and not latent.is_meta and bool(latent.isnan().any()):
            raise InputError(
                f"the {what}{where} holds NaN, which has no sign. The training diverged or the checkpoint is "
                "damaged: go back to an earlier checkpoint and lower the learning rate."
            )


def per_filter(values: Tensor, like: Tensor) -> Tensor:
    """(filters,) values shaped to multiply a weight of `like`'s rank."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def effective(binary: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    """scale * binary + offset, the value that layers compute with."""
    weight = per_filter(scale, binary) * binary
    return weight if offset is None else weight + per_filter(offset, binary)


def he_scale(latent: Tensor, gain: float = 1.0) -> Tensor:
    """`he_constant` times `gain`, repeated per filter."""
    return latent.new_full((latent.shape[0],), gain * he_constant(latent))


def he_constant(latent: Tensor) -> float:
    """sqrt(2 / fan_in); fan_in counts all weights of a filter."""
    return float((2.0 / max(latent.shape[1:].numel(), 1)) ** 0.5)
