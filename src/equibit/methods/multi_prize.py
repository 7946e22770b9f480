"""Multi-prize tickets: binary weights that are never trained; training finds which of them to keep.

Diffenderfer, Kailkhura, "Multi-Prize Lottery Ticket Hypothesis: Finding Accurate Binary Neural Networks by Pruning A
Randomly Weighted Network", ICLR 2021, arXiv 2103.09377. The latent weight W is random and frozen; a score S per weight
is learned. The weights with the largest |S| are kept, the others become 0.

Deviations: the kept count is exact, ceil(density N) (the authors' floor of a float product differs by one now and
then); alpha is the true mean over the kept weights; `init` takes the whole fan-in (the authors' option `scale_fan`
shrinks it); `scope="global"` has its density from the first step on, without the ramp over ten epochs of their later
code. `equal_bits` is our addition.
"""

from collections.abc import Sequence
from typing import ClassVar, Self, cast

import torch
from torch import Tensor, nn

from equibit.activations import sign
from equibit.errors import InputError, StateError, unknown
from equibit.kernels.torch_ops import select, widen
from equibit.methods.counting import CountingRule
from equibit.methods.protocol import Method, effective, he_constant

_SCOPES = ("layer", "global")
_INITS = ("kn", "sc")
_EQUAL_BITS = ("off", "signs", "exact")


class MultiPrize(Method):
    """b = sign(W), w_eff = alpha M b with M = 1 at the largest |S|, else 0; alpha = mean |W| over the kept, per layer.

    Gradient: none onto W; dL/dS = dL/dw_eff |W| b sign(S) everywhere, pruned weights included, which is that of
    W |S| in the place of w_eff (edge-popup); alpha is a constant in the backward pass.

    Args:
        density: Kept share of the weights, in (0, 1]; ceil(density N) of N stay.
        scope: `layer`: N counts the weights of the layer; `global`: those of all layers of the model with this
            method, selected by `equibit.advance`. Before its first call each layer holds the selection of its own.
        init: What the frozen weights are: `kn` draws them anew from N(0, 2 / fan_in), whatever weights the network or
            a float checkpoint has; `sc` takes the signs of those, times sqrt(2 / fan_in).
        equal_bits: `off`; `signs`: b is -1 at the floor(n / 2) lowest weights of every filter, +1 elsewhere;
            `exact`: such signs, and of every filter the floor(density n / 2) negative and ceil(density n / 2)
            positive weights with the largest |S| are kept.

    Attributes:
        scores: S, the parameter that is trained; U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)) at first.
        kept: M as stored by `equibit.advance`; None with `scope="layer"`.

    Raises:
        InputError: An argument is none of its choices or out of range, or `exact` is asked for with `global`.
    """

    key = "multi_prize"
    freezes_latent: ClassVar[bool] = True
    scores: nn.Parameter | None
    kept: Tensor | None

    def __init__(
        self, *, density: float = 0.5, scope: str = "layer", init: str = "kn", equal_bits: str = "off"
    ) -> None:
        super().__init__()
        for name, given, allowed in (
            ("scope", scope, _SCOPES),
            ("init", init, _INITS),
            ("equal_bits", equal_bits, _EQUAL_BITS),
        ):
            if given not in allowed:
                raise unknown(f"{name} of method 'multi_prize'", given, allowed)
        if scope == "global" and equal_bits == "exact":
            raise InputError(
                "equal_bits='exact' fixes how many weights each filter keeps, so scope='global' has nothing to choose; "
                "take scope='layer' or equal_bits='signs'."
            )
        self.density, self.scope, self.init, self.equal_bits = density, scope, init, equal_bits
        self.rule = CountingRule.of(1, density)  # every kept weight counts as positive
        self.halves = CountingRule.of(0.5, density)
        self.register_parameter("scores", None)
        self.register_buffer("kept", None)

    @property
    def levels(self) -> str:
        """`three` when pruned."""
        return "three" if self.density < 1 else "two"

    @property
    def needs_advance(self) -> bool:
        """The selection over all layers is made by `equibit.advance`."""
        return self.scope == "global"

    @torch.no_grad()
    def initial(self, weight: Tensor) -> Tensor:
        """The frozen weights, see `init`."""
        deviation = he_constant(weight)
        if self.init == "kn":
            return torch.empty_like(weight).normal_(std=deviation)
        return deviation * sign(weight)

    @torch.no_grad()
    def attach(self, weight: Tensor) -> None:
        """Draws the scores from torch's generator."""
        bound = weight[0].numel() ** -0.5
        self.scores = nn.Parameter(torch.empty_like(weight).uniform_(-bound, bound))
        if self.scope == "global":
            self.kept = self._highest(self.scores) != 0

    def check(self, latent: Tensor, what: str = "latent weight") -> None:
        """Refuses NaN in the scores too."""
        super().check(latent, what)
        if self.scores is not None:
            super().check(self.scores, "score tensor")

    @classmethod
    @torch.no_grad()
    def advance_together(cls, methods: Sequence[Self]) -> None:
        """One selection over the scores of all layers with `scope="global"`, in the order of the layers.

        Raises:
            InputError: They do not have one density.
            StateError: A layer keeps nothing.
        """
        layers = [method for method in methods if method.scope == "global"]
        if not layers:
            return
        densities = sorted({layer.density for layer in layers})
        if len(densities) > 1:
            raise InputError(
                f"layers of multi_prize with scope='global' have the densities {densities}; give them one."
            )
        scores = [layer._whole_scores() for layer in layers]
        kept = layers[0]._highest(torch.cat([s.flatten() for s in scores])[None]).squeeze(0) != 0
        parts = torch.split(kept, [s.numel() for s in scores])
        for layer, part, score in zip(layers, parts, scores, strict=True):
            cast(Tensor, layer.kept).copy_(part.view(score.shape))
        empty = [not some for some in torch.stack([part.any() for part in parts]).tolist()]  # waits for the device once
        if any(empty):
            names = ", ".join(repr(layer.layer) for layer, none in zip(layers, empty, strict=True) if none)
            raise StateError(
                f"multi_prize with scope='global' and density={densities[0]:g} keeps no weight of layer {names}. "
                "Raise the density, or take scope='layer' (for this layer, by an override)."
            )

    @torch.no_grad()
    def assign(self, latent: Tensor) -> Tensor:
        """M b."""
        signs = self._signs(latent)
        return signs.mul_(self._mask(signs))

    def factors(self, latent: Tensor, binary: Tensor) -> tuple[Tensor, None]:
        """alpha, the mean |W| over the kept weights of the layer, repeated per filter."""
        alpha = (latent.detach() * binary).abs_().sum() / binary.abs().sum()
        return alpha.expand(latent.shape[0]), None

    def forward(self, latent: Tensor) -> Tensor:
        """alpha M b, with the gradient onto the scores."""
        wide, scores = widen(latent.detach()), widen(self._scores())
        signs = self._signs(wide)
        slope = sign(scores).mul_(wide if self.equal_bits == "off" else wide.abs().mul_(signs))  # |W| b sign(S)
        binary = signs.mul_(self._mask(signs))
        scale, _ = self.factors(wide, binary)
        no_change = scores - scores.detach()  # exactly 0, with the gradient of S
        return torch.addcmul(effective(binary, scale, None), slope, no_change).to(latent.dtype)

    def _signs(self, latent: Tensor) -> Tensor:
        return sign(latent) if self.equal_bits == "off" else select(latent, latent[0].numel() // 2)

    def _mask(self, signs: Tensor) -> Tensor:
        """M, as numbers or booleans; `signs` is b."""
        if self.kept is not None:
            return self.kept
        if self.equal_bits != "exact":
            return self._highest(self._scores())
        n = signs[0].numel()
        counts, magnitudes = self.halves.counts(n), widen(self._scores().detach()).abs()
        kept = [
            select(magnitudes.masked_fill(signs != side, -1), n - count, levels=(0.0, 1.0, 1.0))  # -1: below every |S|
            for side, count in ((-1, counts.negative), (1, counts.positive))
        ]
        return kept[0].add_(kept[1])

    def _highest(self, scores: Tensor) -> Tensor:
        """1 at the largest |S| of all `scores`, else 0."""
        row = widen(scores.detach()).reshape(1, -1)
        kept = select(row, self.rule.counts(row.numel()).zero, levels=(0.0, 1.0, 1.0), magnitude=True)
        return kept.view(scores.shape)

    def _scores(self) -> Tensor:
        if self.scores is None:
            raise StateError("multi_prize has no scores yet; call attach(weight) first, as binarize_ does.")
        return self.scores

    def _whole_scores(self) -> Tensor:
        """The scores, put together from the parts of all processes where they are sharded (a DTensor)."""
        scores = self._scores().detach()
        return cast(Tensor, scores.full_tensor()) if hasattr(scores, "full_tensor") else scores

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"density={self.density:g}, scope={self.scope!r}, init={self.init!r}, equal_bits={self.equal_bits!r}"
