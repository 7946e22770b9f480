"""Sign activations: values, gradients worked by hand, and the constant that a ReLU makes of them."""

import pytest
import torch

from equibit import activations
from equibit.errors import InputError

POINTS = [-2.0, -1.0, -0.5, -0.0, 0.0, 0.25, 1.0, 3.0]
SIGNS = [-1, -1, -1, 1, 1, 1, 1, 1]
ELSEWHERE = {"bi_half", "ede", "siman"}  # activations whose signs depend on more than the value have their own files
GRADIENTS = {"sign": [0, 0, 1, 1, 1, 1, 0, 0], "bireal": [0, 0, 1, 2, 2, 1.5, 0, 0]}


def test_every_activation_has_golden_gradients():
    assert set(activations.REGISTRY) == set(GRADIENTS) | ELSEWHERE


@pytest.mark.parametrize("key", sorted(GRADIENTS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients(key, dtype):
    x = torch.tensor([POINTS], dtype=dtype, requires_grad=True)
    y = activations.create(key)(x)
    y.sum().backward()
    assert y.dtype == dtype
    assert y.tolist() == [SIGNS]
    assert x.grad.tolist() == [GRADIENTS[key]]


def test_pads_with_its_value_after_the_sign():
    activation = activations.create("sign", pad_value=-1)
    activation.take_over_padding(torch.nn.Conv1d(1, 1, 3, padding=2))
    assert activation(torch.tensor([[[-3.0, 2.0]]])).tolist() == [[[-1, -1, -1, 1, -1, -1]]]


def test_an_input_without_negative_values_is_refused_once_named_with_the_remedy():
    activation = activations.create("sign")
    activation.layer = "block.conv"
    with pytest.raises(InputError, match=r"'block\.conv'.*ReLU.*bireal.*siman"):
        activation(torch.rand(2, 3).relu())
    activation(torch.randn(2, 30))
    activation(torch.rand(2, 3))  # only the first input is looked at


def test_wrong_arguments():
    with pytest.raises(InputError, match=r"0\.5.*-1, 0 or 1"):
        activations.create("sign", pad_value=0.5)
    with pytest.raises(InputError, match="Did you mean 'bireal'"):
        activations.create("bi_real")
