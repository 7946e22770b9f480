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

LAYER_TYPES: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
ACTIVATION = "sign_activation"  # name of the submodule that binarises a 1W1A layer's input


class BinaryWeight(nn.Module):
    """The parametrisation of a binarised weight: latent -> effective weight.

    In eval mode with gradients off the effective weight is kept until the latent or the method's state changes.
    The comparison is by value, one pass over memory, because version counters miss writes through `.data`, which
    many EMA implementations use. The kept weight enters no copy, state dict or traced graph.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method
        self.advanced = not method.needs_advance
        self._kept: tuple[list[Tensor], Tensor] | None = None

    def forward(self, latent: Tensor) -> Tensor:
        """Effective weight, shape and dtype of `latent`."""
        if self.training and not self.advanced and not torch.compiler.is_compiling():
            self._warn()
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or latent.is_meta:
            return cast(Tensor, self.method(latent))
        state = [latent, *self.method.parameters(), *self.method.buffers()]
        if self._kept is None or not _same(self._kept[0], state):
            self._kept = [s.detach().clone() for s in state], self.method(latent)
        return self._kept[1]

    def _warn(self) -> None:
        self.advanced = True
        warnings.warn(
            f"layer {self.method.layer!r} trains with method {self.method.key!r}, which has a schedule or a "
            "projection, but equibit.advance(model, progress) was never called; call it before every training step.",
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
        """The real-valued weight that the optimiser trains."""
        return cast(nn.Parameter, self.module.parametrizations.weight.original)  # type: ignore[union-attr]

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
            inherited = ("forward", "_conv_forward") if hasattr(base, "_conv_forward") else ("forward",)
            same = all(inspect.getattr_static(module, f) is inspect.getattr_static(base, f) for f in inherited)
            return base if same else None
    return None


def weight_name(layer: str) -> str:
    """The float state-dict name of a layer's weight."""
    return f"{layer}.weight" if layer else "weight"
