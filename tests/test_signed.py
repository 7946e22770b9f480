"""The operator behind the constant-scale sign method equals the general path of every method."""

import math

import pytest
import torch

from equibit.kernels.torch_ops import signed
from equibit.methods import Sign
from equibit.methods.protocol import Method

HOSTILE = [0.0, -0.0, 1e-40, -1e-40, 3.0, -2.0, math.inf, -math.inf, 0.5]


def weights(dtype, memory_format=torch.contiguous_format):
    values = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values[0, 0] = torch.tensor(HOSTILE, dtype=torch.float64).view(3, 3)
    return values.to(dtype).to(memory_format=memory_format)


@pytest.mark.parametrize("scale", ["he", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_equals_the_general_path(scale, dtype, memory_format):
    method = Sign(scale=scale)
    # Finite, because the general path subtracts the latent from itself.
    latent = weights(dtype, memory_format).nan_to_num(posinf=9, neginf=-9).requires_grad_()
    gradient = torch.randn_like(latent)
    weight, general = method(latent), Method.forward(method, latent)
    assert torch.equal(weight, general)
    assert weight.is_contiguous(memory_format=memory_format)
    assert torch.equal(*(torch.autograd.grad(w, latent, gradient)[0] for w in (weight, general)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hostile_values(dtype):
    expected = torch.tensor([0.25 if value >= 0 else -0.25 for value in HOSTILE], dtype=dtype)
    assert torch.equal(signed(torch.tensor(HOSTILE, dtype=dtype), 0.25), expected)


def test_the_operator_keeps_the_rules_of_torch():
    torch.library.opcheck(torch.ops.equibit.signed.default, (torch.randn(3, 4, requires_grad=True), 0.25))
