"""IR-Net against its slow reference, values worked by hand, and what standardisation implies."""

import pytest
import torch
from hostile_weights import NAMES, hostile
from reference_methods import ede
from reference_methods import ir_net as reference

from equibit.errors import InputError
from equibit.methods import IRNet
from equibit.methods.ir_net import shift
from equibit.standardize import standardize


def rows(function, latent, *others):
    """The reference applied to each filter."""
    parts = zip(*(x.flatten(1).tolist() for x in (latent, *others)), strict=True)
    return torch.tensor([function(*part) for part in parts], dtype=torch.float64).view(latent.shape)


@pytest.mark.parametrize("name", NAMES)
def test_weight_and_gradient_against_the_reference(name):
    latent = hostile(name).requires_grad_()
    upstream = torch.randn(latent.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    method = IRNet()
    assert torch.equal(method.binary(latent), rows(reference.binary, latent))
    assert torch.equal(method(latent), rows(reference.weight, latent))
    for progress in (0.0, 0.4, 1.0):
        method.advance(progress)
        t = ede.steepness(progress, 0.1, 10)
        expected = rows(lambda w, g, t=t: reference.gradient(w, g, t), latent.detach(), upstream)
        (gradient,) = torch.autograd.grad(method(latent), latent, upstream)
        # Weights 100 deviations from zero lose 2 of 16 digits in centring, and gradients cancel in the sum over j.
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-11)


def test_golden():
    # mean 1, deviation sqrt((9 + 1 + 1 + 9) / 3): h = (-1.1619, -0.3873, 0.3873, 1.1619), mean |h| = 0.7746, s = 1.
    # At progress 0.5 t = k = 1; g = (1, 0, 0, 0): u = (1 - tanh(1.1619)^2, 0, 0, 0) = (0.324881, 0, 0, 0), and
    # dL/dw = (u - mean u - h sum(u h) / 3) / 2.58199 = u_1 / 2.58199 (1 - 1/4 - 0.45, -1/4 - 0.15, -1/4 + 0.15, 0.2).
    method = IRNet()
    method.advance(0.5)
    latent = torch.tensor([[-2.0, 0.0, 2.0, 4.0]], dtype=torch.float64, requires_grad=True)
    weight = method(latent)
    assert weight.tolist() == [[-1, -1, 1, 1]]
    weight[0, 0].backward()
    expected = [0.125826 * factor for factor in (0.3, -0.4, -0.1, 0.2)]
    assert latent.grad[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_orthogonal_to_ones_and_to_h():
    latent = hostile("random").requires_grad_()
    (gradient,) = torch.autograd.grad(IRNet()(latent), latent, torch.randn(latent.shape, dtype=torch.float64))
    h = standardize(latent.detach()).values
    # Sums over 45 entries of order 20 (the gradient of weights of deviation 0.05).
    assert gradient.flatten(1).sum(1).abs().max() < 1e-11
    assert (gradient * h).flatten(1).sum(1).abs().max() < 1e-11


@pytest.mark.parametrize(("n", "share"), [(9, 0.124), (27, 0.023), (36, 0.011)])
def test_share_of_gaussian_filters_with_scale_one_half(n, share):
    scale = IRNet().scale(torch.randn(100_000, n, generator=torch.Generator().manual_seed(0)))
    assert set(scale.tolist()) <= {1.0, 0.5}
    # The spec gives three digits; the deviation of a share over 100,000 filters is at most 0.001.
    assert float((scale == 0.5).double().mean()) == pytest.approx(share, abs=0.003)


def test_heavy_tails_have_smaller_scales_and_every_scale_is_an_exact_power_of_two():
    latent = torch.zeros(1, 4000)
    latent[0, 0] = 1  # h = (sqrt(n), -1 / sqrt(n), ...): mean |h| is nearly 2 / sqrt(n) = 0.0316, log2 -4.98
    assert IRNet().scale(latent).tolist() == [2.0**-5]
    for dtype in (torch.float32, torch.float64):
        powers = [2.0**e for e in range(-30, 5)]
        assert shift(torch.tensor(powers, dtype=dtype)[:, None]).tolist() == powers


def test_standardisation_is_differentiated_exactly():
    latent = hostile("random").requires_grad_()
    for biased, eps in ((False, 0.0), (True, 0.0), (False, 1e-5)):
        assert torch.autograd.gradcheck(lambda w, b=biased, e=eps: tuple(standardize(w, biased=b, eps=e)), latent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_weights_are_centred_to_exactly_zero(dtype):
    values = torch.linspace(-3, 3, 97, dtype=dtype)
    for n in (1, 3, 9, 27, 4609):
        latent = values[:, None].expand(-1, n).clone().requires_grad_()
        h, mean, deviation = standardize(latent)
        assert not h.any()
        assert not deviation.any()
        assert torch.equal(mean.flatten(), values)
        (gradient,) = torch.autograd.grad((h.sum() + mean.sum() + deviation.sum()), latent)
        assert not gradient.any()


def test_channels_last_weights_give_the_same():
    latent = torch.randn(8, 16, 3, 3)
    other = latent.to(memory_format=torch.channels_last)
    assert torch.equal(IRNet().binary(latent), IRNet().binary(other))


def test_wrong_arguments():
    with pytest.raises(InputError, match="at least t_min"):
        IRNet(t_min=3, t_max=2)
    with pytest.raises(InputError, match="t_min is -1"):
        IRNet(t_min=-1)
