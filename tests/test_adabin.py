"""AdaBin against its slow reference, values worked by hand, and its offsets through packing and export."""

import pytest
import torch
from hostile_weights import NAMES, hostile
from reference_methods import adabin as reference
from reference_methods import ede
from test_ir_net import rows
from torch import nn

import equibit as eb
from equibit.methods import AdaBin


@pytest.mark.parametrize("name", NAMES)
def test_weight_and_gradient_against_the_reference(name):
    latent = hostile(name).requires_grad_()
    upstream = torch.randn(latent.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    method = AdaBin()
    assert torch.equal(method.binary(latent), rows(reference.binary, latent))
    torch.testing.assert_close(method(latent), rows(reference.weight, latent), rtol=1e-12, atol=1e-14)
    for progress in (0.0, 0.6, 1.0):
        method.advance(progress)
        t = ede.steepness(progress, 1e-3, 10)
        expected = rows(lambda w, g, t=t: reference.gradient(w, g, t), latent.detach(), upstream)
        (gradient,) = torch.autograd.grad(method(latent), latent, upstream)
        # Weights 100 deviations from zero lose 2 of 16 digits in centring, and gradients cancel in the sum over j.
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-11)


def test_golden():
    # beta = 1, alpha = sqrt((9 + 1 + 1 + 9) / 4) = sqrt 5.
    latent = torch.tensor([[-2.0, 0.0, 2.0, 4.0]], dtype=torch.float64, requires_grad=True)
    method = AdaBin()
    low, high = 1 - 5**0.5, 1 + 5**0.5
    assert method(latent)[0].tolist() == pytest.approx([low, low, high, high], rel=1e-15)
    assert method.scale(latent).tolist() == pytest.approx([5**0.5], rel=1e-15)
    assert method.offset(latent).tolist() == [1]
    # At the start the slope of b is 1 - (0.001 h)^2, within 2e-6 of 1, so v = g: dL/dw = g + h mean(g b - g h). With
    # g = (0, 0, 0, 1) and h = (-3, -1, 1, 3) / sqrt 5: mean(g b - g h) = (1 - 3 / sqrt 5) / 4 = -0.0854102.
    method(latent)[0, 3].backward()
    expected = [-0.0854102 * h / 5**0.5 + g for h, g in ((-3, 0), (-1, 0), (1, 0), (3, 1))]
    assert latent.grad[0].tolist() == pytest.approx(expected, abs=4e-6)


def test_the_gradient_formula_of_the_docstring():
    latent = hostile("random").requires_grad_()
    g = torch.randn(latent.shape, dtype=torch.float64)
    method = AdaBin()
    method.advance(0.7)
    (gradient,) = torch.autograd.grad(method(latent), latent, g)

    def mean(x):
        return x.mean((1, 2, 3), keepdim=True)

    w, t = latent.detach(), method.estimator.t
    h = (w - mean(w)) / mean((w - mean(w)).square()).sqrt()
    v = g * (1 / t).clamp(min=1) * t * (1 - (t * h).tanh() ** 2)
    expected = v + mean(g - v) + h * mean(g * torch.where(h >= 0, 1.0, -1.0) - v * h)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("activation", [None, "ede"])
def test_offsets_survive_packing_the_checkpoint_and_export(activation, tmp_path):
    def network():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False),
            nn.BatchNorm2d(6),
            nn.ConvTranspose2d(6, 4, 3),
            nn.Flatten(),
            nn.Linear(4 * 7 * 7, 5),
        ).eval()

    model, x = network(), torch.randn(3, 4, 5, 5)
    with torch.no_grad():
        model[0].weight[2] = 0.3  # a constant filter: alpha 0, its mean is the offset
    eb.binarize_(model, "adabin", activation=activation, skip=eb.nothing)
    packed = eb.pack(model)
    # Asked for gradients, packed layers compute in torch's own operations, as the model does. The kernels add in other
    # orders, and the filter that is its offset alone gives sums that are 0 but for rounding: of either sign.
    assert torch.equal(packed(x.clone().requires_grad_()), model(x))
    assert float(packed[0].scale[2]) == 0
    assert float(packed[0].offset[2]) == pytest.approx(0.3, rel=1e-7)
    eb.save_packed(packed, tmp_path / "m.safetensors")
    assert torch.equal(eb.load_packed(tmp_path / "m.safetensors", network())(x), packed(x))
    eb.export_onnx(packed, tmp_path / "m.onnx", x)
    check = eb.verify_onnx(model, tmp_path / "m.onnx", x)
    assert check.ok, check
