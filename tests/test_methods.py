"""Methods: values, gradients worked by hand, and the contract suite over the registry."""

import copy
import itertools

import pytest
import torch

import equibit as eb
from equibit.errors import InputError, StateError
from equibit.methods import BiHalf, Method, Sign, check_method
from equibit.methods.protocol import he_scale

VARIANTS = {
    "adabin": [{}, {"t_min": 0.5, "t_max": 2}],
    "ir_net": [{}, {"t_min": 1e-3}],
    "recu": [{}, {"tau_min": 0.6, "tau_max": 0.6}],
    "reste": [{}, {"o_end": 1}],
    "siman": [{}, {"mode": "optimal"}, {"clip": 0.0}],
    "group_transform": [
        dict(zip(("form", "group", "schedule"), choice, strict=True))
        for choice in itertools.product(
            ("1a", "1b", "2", "3"), ("filter", "layer"), ("geometric", "linear", "cosine", "constant")
        )
    ],
    "bi_half": [
        dict(zip(("ratio", "density", "scale", "rescale"), choice, strict=True))
        for choice in itertools.product((0.5, 0.0, 0.3, 1.0), (1.0, 0.4), ("he", "none"), (False, True))
    ],
    "multi_prize": [
        dict(zip(("density", "scope", "init", "equal_bits"), choice, strict=True))
        for choice in itertools.product((0.5, 0.1, 1.0), ("layer", "global"), ("kn", "sc"), ("off", "signs", "exact"))
        if choice[1::2] != ("global", "exact")
    ],
    "sign": [
        dict(zip(("scale", "ste", "detach_scale", "density"), choice, strict=True))
        for choice in itertools.product(
            ("none", "he", "mean_abs"), ("identity", "clip", "clip_unscaled"), (True, False), (1.0, 0.4)
        )
    ],
}


def test_every_method_is_listed_and_has_variants_here():
    assert eb.methods.list() == sorted(VARIANTS)


@pytest.mark.parametrize("key", sorted(VARIANTS))
def test_contract_suite(key):
    assert check_method(eb.methods.create(key)) == 375  # 5 shapes, 3 dtypes, 5 kinds of weights, 5 checks
    for arguments in VARIANTS[key][::5]:
        assert check_method(eb.methods.create(key, **arguments)) == 375


class Broken(Method):
    """Passes the suite until one of its faults is switched on."""

    key = "broken"

    def __init__(self, fault=""):
        super().__init__()
        self.fault = fault
        self.steps = 0

    def check(self, latent):
        if self.fault != "accepts nan":
            super().check(latent)

    def assign(self, latent):
        binary = torch.where(latent >= 0, 1.0, -1.0).to(latent.dtype)
        if self.fault == "sign of zero":
            binary = latent.sign()
        if self.fault == "edits the latent":
            latent.data.mul_(0.5)
        return binary

    def factors(self, latent, binary):
        scale = he_scale(latent) * (torch.nan if self.fault == "nan scale" else 1)
        return (scale.float() if self.fault == "leaves float64" else scale), None

    def advance(self, progress):
        self.steps += 1

    def forward(self, latent):
        weight = super().forward(latent)
        if self.fault == "impure schedule":
            return weight * self.steps
        return weight * 1.5 if self.fault == "eval differs" and not self.training else weight


def test_contract_suite_passes_a_sound_method_and_finds_every_fault():
    assert check_method(Broken()) == 375
    for fault in ("accepts nan", "sign of zero", "edits the latent", "nan scale", "leaves float64", "impure schedule"):
        with pytest.raises(StateError, match="Broken fails"):
            check_method(Broken(fault))
    with pytest.raises(StateError, match="eval forward"):
        check_method(Broken("eval differs"))


def test_create_names_the_nearest_key_and_argument():
    with pytest.raises(InputError, match=r"'bi_halv'.*Did you mean 'bi_half'.*sign"):
        eb.methods.create("bi_halv")
    with pytest.raises(InputError, match=r"'ratoi'.*Did you mean 'ratio'"):
        eb.methods.create("bi_half", ratoi=0.5)
    with pytest.raises(InputError, match="mean_abs"):
        Sign(scale="mean")


# --- bi_half ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", VARIANTS["bi_half"])
def test_bi_half_counts_are_exact_in_every_filter(arguments):
    method = BiHalf(**arguments)
    for n in (1, 2, 9, 10, 27, 576):
        counts = method.rule.counts(n)
        for latent in (torch.randn(6, n), torch.zeros(6, n), torch.randn(6, n).round()):
            binary = method.binary(latent)
            assert ((binary == -1).sum(1) == counts.negative).all()
            assert ((binary == 1).sum(1) == counts.positive).all()


def test_bi_half_golden():
    latent = torch.tensor([[0.3, -0.2, 0.3, 0.9, 0.3], [5.0, 5.0, -0.0, 0.0, 5.0]])
    expected = torch.tensor([[-1.0, -1, 1, 1, 1], [1, 1, -1, -1, 1]])  # lower index first to -1
    assert torch.equal(BiHalf().binary(latent), expected)
    ternary = torch.tensor([[0.0, -1, 0, 1, 0], [0, 0, -1, 0, 1]])
    assert torch.equal(BiHalf(density=0.4).binary(latent), ternary)


def test_bi_half_depends_on_ranks_only():
    latent = torch.randn(8, 101, dtype=torch.float64)
    assert torch.equal(BiHalf().binary(latent), BiHalf().binary(3 * latent + 7))


def test_bi_half_gradient_is_the_scaled_identity_everywhere():
    for density, rescale in ((1.0, False), (0.5, False), (0.5, True)):
        latent = (10 * torch.randn(4, 18, dtype=torch.float64)).requires_grad_()
        upstream = torch.randn_like(latent)
        weight = BiHalf(density=density, rescale=rescale)(latent)
        weight.backward(upstream)
        scale = (2 / 18) ** 0.5 * (density**-0.5 if rescale else 1)
        torch.testing.assert_close(latent.grad, scale * upstream, rtol=1e-15, atol=0)
        assert set((weight.detach() / scale).round(decimals=12).unique().tolist()) <= {-1.0, 0.0, 1.0}


def test_selection_happens_in_float32_for_half_types_and_in_float64_for_float64():
    close = torch.tensor([[1.0, 1.0 + 2**-30, 1.0 - 2**-30, 0.5]], dtype=torch.float64)  # equal in float32
    assert BiHalf().binary(close).tolist() == [[1.0, 1.0, -1.0, -1.0]]
    half = torch.randn(3, 64).bfloat16()
    assert torch.equal(BiHalf().binary(half), BiHalf().binary(half.float()).bfloat16())


# --- sign ------------------------------------------------------------------------------------------------------------


def test_sign_of_both_zeros_is_plus_one():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert Sign().binary(torch.tensor([[0.0, -0.0, -1e-6, 1e-6]], dtype=dtype)).tolist() == [[1, 1, -1, 1]]


def gradient(method, latent, upstream):
    leaf = torch.tensor([latent], dtype=torch.float64, requires_grad=True)
    method(leaf).backward(torch.tensor([upstream], dtype=torch.float64))
    return leaf.grad[0].tolist()


def test_sign_gradients_worked_by_hand():
    latent, g = [0.5, -1.0, 2.0, -0.5], [1.0, 2.0, 3.0, 4.0]  # mean |w| = 1, sign = + - + -
    he = 0.5**0.5  # sqrt(2 / 4)
    assert gradient(Sign(), latent, g) == pytest.approx([he * x for x in g], abs=1e-15)
    assert gradient(Sign(ste="clip"), latent, g) == pytest.approx([he, 2 * he, 0, 4 * he], abs=1e-15)
    bireal = Sign(scale="mean_abs", ste="clip_unscaled")
    assert gradient(bireal, latent, g) == [1, 2, 0, 4]
    # XNOR-Net: alpha g 1[|w| <= 1] + sign(w) / n * sum_j g_j sign(w_j), the sum being 1 - 2 + 3 - 4 = -2.
    xnor = Sign(scale="mean_abs", ste="clip", detach_scale=False, project="xnor")
    assert gradient(xnor, latent, g) == pytest.approx([1 - 0.5, 2 + 0.5, 0 - 0.5, 4 + 0.5], abs=1e-15)


def test_clip_unscaled_with_a_differentiated_scale_keeps_the_value():
    method = Sign(scale="mean_abs", ste="clip_unscaled", detach_scale=False)
    latent = torch.randn(3, 10, dtype=torch.float64)
    expected = latent.abs().mean(1, keepdim=True) * Sign().binary(latent)
    assert torch.equal(method(latent), method.eval()(latent))
    torch.testing.assert_close(method(latent), expected, rtol=1e-15, atol=0)


def test_sign_density_prunes_the_smallest_magnitudes_of_the_layer():
    latent = torch.tensor([[0.1, -5.0, 0.1], [-0.1, 2.0, -3.0]])
    assert Sign(density=0.5).binary(latent).tolist() == [[0, -1, 0], [0, 1, -1]]
    kept = Sign(density=0.7).binary(latent)  # floor(0.3 * 6) = 1 pruned: the first of the equal magnitudes
    assert kept.tolist() == [[0, -1, 1], [-1, 1, -1]]
    assert Sign(density=0.5, scale="mean_abs").scale(latent).tolist() == [5.0, 2.5]


def test_xnor_projection_centres_over_input_channels_and_clamps():
    latent = torch.tensor([[[3.0, 0.0], [-1.0, 0.5]]])  # (1 filter, 2 channels, 2 taps); channel means 1, 0.25
    Sign(project="xnor").project_(latent)
    assert latent.tolist() == [[[1.0, -0.25], [-1.0, 0.25]]]
    with pytest.raises(InputError, match="one input"):
        Sign(project="xnor").attach(torch.randn(4, 1, 3, 3))


def test_a_method_is_copied_not_shared():
    method = BiHalf(0.3)
    other = copy.deepcopy(method)
    other.layer = "x"
    assert method.layer == ""
