"""Entropy of the signs that go into binary layers, against inputs whose signs are known."""

import math

import pytest
import torch
from torch import nn

import equibit as eb
from equibit.analysis import input_signs


def quarter():
    return -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))


def images():
    """Four images of 2 x 2 pixels: of the three channels 1/4, 1/2 and all of the values are positive."""
    x = -torch.ones(4, 3, 2, 2)
    x[:, 0, 0, 0] = 1
    x[:2, 1] = 1
    x[:, 2] = 2
    return x


@pytest.mark.parametrize("activation", [None, "sign", "bireal"])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_of_a_convolution(activation, size):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    eb.binarize_(model, "sign", activation=activation, skip=eb.nothing)
    found = input_signs(model, images().split(size))["0"]
    assert (found.channels, found.constant) == (3, 1)
    assert found.entropy == pytest.approx((quarter() + 1 + 0) / 3, abs=1e-12)


def test_padding_does_not_count():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    eb.binarize_(model, "sign", activation=eb.activations.create("sign", pad_value=1.0), skip=eb.nothing)
    assert input_signs(model, [images()])["0"].entropy == pytest.approx((quarter() + 1) / 3, abs=1e-12)


@pytest.mark.parametrize("leading", [(8,), (2, 4)])
def test_of_a_linear_layer_the_features_are_last(leading):
    model = nn.Sequential(nn.Linear(2, 3))
    eb.binarize_(model, "sign", skip=eb.nothing)
    x = torch.tensor([[1.0, 1], [1, -1], [-1, -1], [-1, -1]] * 2).reshape(*leading, 2)
    assert input_signs(model, [x])["0"].entropy == pytest.approx((1 + quarter()) / 2, abs=1e-12)


def test_behind_a_relu_zero_is_an_inactive_unit_and_in_1w1a_a_positive_one():
    zeros = torch.zeros(4, 3, 2, 2)
    real, signs = (nn.Sequential(nn.Conv2d(3, 4, 1)) for _ in range(2))
    eb.binarize_(real, "sign", skip=eb.nothing)
    eb.binarize_(signs, "sign", activation="siman", skip=eb.nothing)
    half = torch.cat([zeros, zeros + 1])
    assert input_signs(real, [half])["0"].entropy == 1
    assert input_signs(signs, [half])["0"].constant == 3  # a constant sample is standardised to 0, whose sign is +1


def test_what_the_layer_sees_is_counted_and_nothing_is_left_behind():
    model = eb.models.create("digits_net", in_shape=(1, 8, 8))
    eb.binarize_(model, "sign")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    found = input_signs(model, torch.randn(8, 1, 8, 8).split(4))
    assert list(found) == ["conv2", "conv3", "fc1"]
    assert all(0 < layer.entropy <= 1 for layer in found.values())
    assert model.training
    assert hooks == [len(module._forward_pre_hooks) for module in model.modules()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_running_median_of_bi_half_is_taken_off():
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    eb.binarize_(model, "sign", activation="bi_half", skip=eb.nothing)
    model[0].sign_activation.running_median.fill_(1.5)
    assert input_signs(model, [images()])["0"].constant == 3
    model[0].sign_activation.running_median.fill_(0.0)
    assert input_signs(model, [images()])["0"].constant == 1


def test_a_float_model_is_not_run_and_an_uncalled_layer_is_left_out():
    assert input_signs(nn.Sequential(nn.Linear(2, 2)), iter([None])) == {}

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    model = Half()
    eb.binarize_(model, "sign", skip=eb.nothing)
    assert list(input_signs(model, [torch.randn(4, 2)])) == ["used"]
