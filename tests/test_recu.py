"""ReCU against its slow reference, values worked by hand, its learned scale and its schedule."""

import copy
import math

import pytest
import torch
from hostile_weights import NAMES, hostile
from reference_methods import recu as reference
from torch import nn

import equibit as eb
from equibit.errors import InputError, StateError
from equibit.methods import ReCU


def attached(latent, **arguments):
    method = ReCU(**arguments)
    method.attach(latent)
    return method


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_weight_and_gradients_against_the_reference(name, progress):
    latent = hostile(name).requires_grad_()
    upstream = torch.randn(latent.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    method = attached(latent)
    method.advance(progress)
    layer, g, tau = latent.flatten(1).tolist(), upstream.flatten(1).tolist(), reference.tau(progress, 0.85, 0.99)
    scales = method.learned_scale.tolist()

    def tensor(values):
        return torch.tensor(values, dtype=torch.float64).view(latent.shape)

    assert torch.equal(method.binary(latent), tensor(reference.binary(layer, tau)))
    assert torch.equal(method(latent), tensor(reference.weight(layer, scales, tau)))
    found, of_scale = torch.autograd.grad(method(latent), (latent, method.learned_scale), upstream)
    # Weights 100 deviations from zero lose 2 of 16 digits in centring, and gradients cancel in the sum over j.
    torch.testing.assert_close(found, tensor(reference.gradient(layer, g, scales, tau)), rtol=1e-9, atol=1e-10)
    expected = torch.tensor(reference.scale_gradient(layer, g, tau), dtype=torch.float64)
    torch.testing.assert_close(of_scale, expected, rtol=1e-12, atol=1e-12)


def test_golden():
    # Of w = (-1, 0, 1) the mean is 0 and the variance 1, and E is 2/3 of the largest |w1|. So Q / max|w1| is
    # -(2 / 3) ln(2 - 2 tau): 0.8026 at tau = 0.85, where both ends are clamped, and 2.608 at 0.99, where none is.
    method = attached(torch.zeros(1, 3, dtype=torch.float64))
    with torch.no_grad():
        method.learned_scale.fill_(0.5)
    latent = torch.tensor([[-1.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    weight = method(latent)
    assert weight.tolist() == [[-0.5, 0.5, 0.5]]
    # dL/dw1 = (0, 0.5, 0), and dw1_2/dw = 2 sqrt(2) / sqrt(1 + 1e-5) (-1/3, 2/3, -1/3), for w1_2 = 0.
    (gradient,) = torch.autograd.grad(weight.sum(), latent)
    slope = 2 * math.sqrt(2 / (1 + 1e-5))
    assert gradient[0].tolist() == pytest.approx([-slope / 6, slope / 3, -slope / 6], rel=1e-12)
    method.advance(1.0)
    (gradient,) = torch.autograd.grad(method(latent).sum(), latent)
    assert gradient[0].tolist() == pytest.approx([0, 0, 0], abs=1e-15)  # equal u: their mean is taken off


def test_the_clamp_passes_the_gradient_at_its_border():
    w1 = torch.tensor([-2.0, 2.0, 2.5], requires_grad=True)
    limit = torch.tensor(2.0)
    w1.clamp(-limit, limit).sum().backward()
    assert w1.grad.tolist() == [1, 1, 0]


def test_the_clamp_holds_the_share_tau_of_laplace_weights():
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(1, 200_000, generator=generator, dtype=torch.float64) - 0.5
    latent = -uniform.sign() * torch.log1p(-2 * uniform.abs())
    method = attached(latent)
    for progress, tau in ((0.0, 0.85), (1.0, 0.99)):
        method.advance(progress)
        w1 = torch.tensor(reference.first(latent[0].tolist()), dtype=torch.float64)
        limit = float(method.bound) * w1.abs().mean()
        # Q is the tau-quantile: two-sided, 2 tau - 1 of the weights lie inside. 200,000 weights: deviation 0.001.
        assert float((w1.abs() <= limit).double().mean()) == pytest.approx(2 * tau - 1, abs=0.005)


def test_schedule():
    method = ReCU()
    for progress, tau in ((0.0, 0.85), (0.5, 0.9028556936), (1.0, 0.99)):
        method.advance(progress)
        assert float(method.bound) == pytest.approx(-math.log(2 - 2 * tau), rel=1e-7)


def test_the_learned_scale_starts_uniform_trains_and_is_drawn_anew_for_a_float_checkpoint():
    scale = attached(torch.zeros(10_000, 2)).learned_scale.detach()
    assert 0 <= float(scale.min()) < 0.01
    assert 0.99 < float(scale.max()) < 1
    assert float(scale.mean()) == pytest.approx(0.5, abs=0.02)  # deviation of the mean: 0.003
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3))
    state = copy.deepcopy(model.state_dict())
    eb.binarize_(model, "recu")
    name = "1.parametrizations.weight.0.method.learned_scale"
    before = model.state_dict()[name].clone()
    (group,) = eb.param_groups(model, 1e-4)  # weight decay on all, as in the paper
    assert len(group["params"]) == 7
    model.load_state_dict(state)
    assert model.state_dict()[name].shape == before.shape
    assert not torch.equal(model.state_dict()[name], before)


def test_before_attach_there_are_bits_and_no_scale():
    latent = hostile("random")
    assert torch.equal(ReCU().binary(latent), attached(latent).binary(latent))
    with pytest.raises(StateError, match="attach"):
        ReCU().scale(latent)


@pytest.mark.parametrize("arguments", [{"tau_min": 0.5}, {"tau_max": 1.0}, {"tau_min": 0.9, "tau_max": 0.8}])
def test_wrong_arguments(arguments):
    with pytest.raises(InputError, match="tau_m"):
        ReCU(**arguments)
