"""What a binarised layer is: a user's layer whose `weight` is parametrised by a method."""

import inspect
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from equibit.activations import SignActivation
from equibit.methods.protocol import Method

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYER_TYPES: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
ACTIVATION = "sign_activation"  # name of the submodule that binarises a 1W1A layer's input


def swapped_groups(layer: nn.Module) -> int | None:
    """Groups of a ConvTranspose, whose weight has its channel axes swapped; None for a layer with filters in dim 0."""
    return layer.groups if isinstance(layer, TRANSPOSED) else None


def filters_first(weight: Tensor, groups: int | None) -> Tensor:
    """The weight of a float layer with its filters in dim 0, and back: the swap is its own inverse.

    The only definition of the axis move. A ConvTranspose with G groups holds (Cin, Cout / G, *kernel); filter (g, o),
    all weights of one output channel, is `weight[g * Cin / G : (g + 1) * Cin / G, o]`. Filters first it is
    (Cout, Cin / G, *kernel).

    Args:
        weight: In either order.
        groups: `swapped_groups` of the layer; for None the weight is returned as it is.
    """
    if groups is None:
        return weight
    return weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1).contiguous()


class BinaryWeight(nn.Module):
    """The parametrisation of a binarised weight: latent -> effective weight, both shaped as the float weight.

    In eval mode with gradients off the effective weight is kept until the latent or the method's state changes.
    The comparison is by value, one pass over memory, because version counters miss writes through `.data`, which
    many EMA implementations use. The kept weight enters no copy, state dict or traced graph.
    """

    def __init__(self, method: Method, groups: int | None) -> None:
        super().__init__()
        self.method = method
        self.groups = groups  # of a ConvTranspose, see `filters_first`
        self.advanced = not method.needs_advance
        self._kept: tuple[list[Tensor], Tensor] | None = None

    def forward(self, latent: Tensor) -> Tensor:
        """Effective weight, shape and dtype of `latent`."""
        if not torch.compiler.is_compiling() and self.training and not self.advanced:
            self._warn()
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or latent.is_meta:
            return self._effective(latent)
        state = [latent, *self.method.parameters(), *self.method.buffers()]
        if self._kept is None or not _same(self._kept[0], state):
            self._kept = [s.detach().clone() for s in state], self._effective(latent)
        return self._kept[1]

    def _effective(self, latent: Tensor) -> Tensor:
        return filters_first(self.method(filters_first(latent, self.groups)), self.groups)

    def _warn(self) -> None:
        self.advanced = True
        warnings.warn(
            f"layer {self.method.layer!r} trains with method {self.method.key!r}; it or the sign activation has a "
            "schedule or a projection, but equibit.advance(model, progress) was never called; call it before every "
            "training step.",
            stacklevel=2,
        )

    def train(self, mode: bool = True) -> "BinaryWeight":
        """Switches mode and forgets the kept weight."""
        self._kept = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


def _same(kept: list[Tensor], state: list[Tensor]) -> bool:
    return all(
        k.dtype == s.dtype and k.device == s.device and torch.equal(k, s) for k, s in zip(kept, state, strict=True)
    )


class BinaryLayer(NamedTuple):
    """One binarised layer of a model."""

    name: str
    module: nn.Module
    parametrization: BinaryWeight

    @property
    def method(self) -> Method:
        """The layer's own copy of the method."""
        return self.parametrization.method

    @property
    def latent(self) -> nn.Parameter:
        """The real-valued weight that the optimiser trains (or the method freezes), shaped as the float layer's."""
        return cast(nn.Parameter, self.module.parametrizations.weight.original)  # type: ignore[union-attr]

    @property
    def filters(self) -> Tensor:
        """The latent weight as the method sees it, filters in dim 0."""
        return filters_first(self.latent, self.parametrization.groups)

    def binary(self) -> Tensor:
        """The binary weight, exactly -1/+1 (0 where pruned), shaped as the float layer's weight.

        Raises:
            InputError: The latent weight holds NaN; the error names the layer.
        """
        return filters_first(self.method.binary(self.filters), self.parametrization.groups)

    @torch.no_grad()
    def project_(self) -> None:
        """The method's projection of the latent weight, in place."""
        filters = self.filters
        self.method.project_(filters)
        if self.parametrization.groups is not None:  # `filters` is then a copy
            self.latent.copy_(filters_first(filters, self.parametrization.groups))

    @property
    def activation(self) -> SignActivation | None:
        """The sign activation before a 1W1A layer."""
        return cast(SignActivation | None, getattr(self.module, ACTIVATION, None))


def binary_weight_of(module: nn.Module) -> BinaryWeight | None:
    """The BinaryWeight on the module's `weight`, or None."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    first = module.parametrizations.weight[0]  # type: ignore[union-attr, index]
    return first if isinstance(first, BinaryWeight) else None


def binary_layers(model: nn.Module) -> Iterator[BinaryLayer]:
    """All binarised layers in the order of `named_modules`."""
    for name, module in model.named_modules():
        found = binary_weight_of(module)
        if found is not None:
            yield BinaryLayer(name, module, found)


def layer_kind(module: nn.Module) -> type[nn.Module] | None:
    """The entry of LAYER_TYPES that `module` computes as, or None if it computes something else.

    A subclass counts only while it keeps the base class's forward: packing rebuilds that forward.
    """
    for base in LAYER_TYPES:
        if isinstance(module, base):
            inherited = [f for f in ("forward", "_conv_forward", "_output_padding") if hasattr(base, f)]
            same = all(inspect.getattr_static(module, f) is inspect.getattr_static(base, f) for f in inherited)
            return base if same else None
    return None


def weight_name(layer: str) -> str:
    """The float state-dict name of a layer's weight."""
    return f"{layer}.weight" if layer else "weight"
