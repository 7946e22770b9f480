"""ReSTE against its slow reference, values worked by hand, and the borders of its slope."""

import pytest
import torch
from hostile_weights import NAMES, hostile
from reference_methods import reste as reference

from equibit.errors import InputError
from equibit.methods import ReSTE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_weight_and_gradient_against_the_reference(name, progress):
    latent = (10 * hostile(name)).requires_grad_()  # so that all three parts of the slope occur
    upstream = torch.randn(latent.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    method = ReSTE()
    method.advance(progress)
    layer, g, o = latent.flatten().tolist(), upstream.flatten().tolist(), reference.order(progress, 3.0)

    def tensor(values):
        return torch.tensor(values, dtype=torch.float64).view(latent.shape)

    assert torch.equal(method.binary(latent), tensor(reference.binary(layer)))
    torch.testing.assert_close(method(latent), tensor(reference.weight(layer)), rtol=1e-14, atol=0)
    (gradient,) = torch.autograd.grad(method(latent), latent, upstream)
    # One power and sums of at most 184 terms of order 1.
    torch.testing.assert_close(gradient, tensor(reference.gradient(layer, g, o)), rtol=1e-12, atol=1e-13)


def test_golden():
    # o = 2 at cos(pi u / 2) = 1/2, that is u = 2/3: slope |w|^(-1/2) / 2 in the middle, 0.1^(-1/2) at most 0.1, 0 above
    # 1.5. alpha = (0.05 + 0.25 + 1 + 2.7) / 4 = 1; with g = 1 the way through alpha adds b / 4 * sum b = 0.
    method = ReSTE()
    method.advance(2 / 3)
    latent = torch.tensor([[0.05, -0.25], [1.0, -2.7]], dtype=torch.float64, requires_grad=True)
    weight = method(latent)
    assert weight.tolist() == [[1, -1], [1, -1]]
    assert method.scale(latent).tolist() == [1, 1]
    weight.sum().backward()
    assert latent.grad.flatten().tolist() == pytest.approx([0.1**-0.5, 1, 0.5, 0], rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_borders_belong_to_the_inner_part(dtype):
    method = ReSTE()
    method.advance(1.0)
    latent = torch.tensor([[0.1, -0.1, 1.5, -1.5]], dtype=dtype)
    above = torch.nextafter(latent.abs(), torch.full_like(latent, 9)) * latent.sign()
    near, far = 0.1 ** (-2 / 3), 1.5 ** (-2 / 3) / 3
    # float32 powers are good to a few of its eps.
    assert method._slope(latent.abs())[0].tolist() == pytest.approx([near, near, far, far], rel=1e-6)
    assert method._slope(above.abs())[0].tolist() == pytest.approx([near / 3, near / 3, 0, 0], rel=1e-6)


def test_it_starts_as_the_clipped_identity_and_o_end_one_stays_so():
    latent = torch.tensor([[0.0, -0.05, 0.7, 1.4, 1.6]], dtype=torch.float64)
    for method, progress in ((ReSTE(), 0.0), (ReSTE(1.0), 1.0)):
        method.advance(progress)
        assert method._slope(latent.abs()).tolist() == [[1, 1, 1, 1, 0]]


@pytest.mark.parametrize("o_end", [0.5, float("inf"), "three"])
def test_wrong_arguments(o_end):
    with pytest.raises(InputError, match="o_end"):
        ReSTE(o_end)
