"""EDE: the estimator of IR-Net and AdaBin, and the activation `ede`."""

import math

import pytest
import torch
from reference_methods import ede as reference
from torch import nn

import equibit as eb
from equibit import activations
from equibit.activations import ErrorDecay
from equibit.errors import InputError


@pytest.mark.parametrize(("t_min", "t_max"), [(0.1, 10.0), (1e-3, 10.0), (2.0, 2.0)])
@pytest.mark.parametrize("progress", [0.0, 0.3, 0.5, 1.0])
def test_values_and_slopes_against_the_reference(t_min, t_max, progress):
    estimator = ErrorDecay(t_min, t_max)
    estimator.advance(progress)
    x = torch.tensor([[-3.0, -1.0, -0.2, -1e-9, -0.0, 0.0, 0.1, 0.75, 40.0]], dtype=torch.float64, requires_grad=True)
    y = estimator(x)
    y.sum().backward()
    assert y.tolist() == [[-1, -1, -1, -1, 1, 1, 1, 1, 1]]
    t = reference.steepness(progress, t_min, t_max)
    expected = torch.tensor([[reference.slope(v, t) for v in x[0].tolist()]], dtype=torch.float64)
    # t x reaches 400, where 1 - tanh^2 is a difference of nearly equal numbers: absolute error of a few eps times k t.
    torch.testing.assert_close(x.grad, expected, rtol=1e-13, atol=1e-14)


def test_golden():
    estimator = ErrorDecay()  # t = 0.1, 1, 10 at the start, in the middle, at the end; k = 10, 1, 1
    x = torch.tensor([[0.0, 0.5]], dtype=torch.float64, requires_grad=True)
    for progress, at_half in ((0.0, 0.9975041608), (0.5, 0.7864477330), (1.0, 0.0018158323)):
        estimator.advance(progress)
        (gradient,) = torch.autograd.grad(estimator(x).sum(), x)
        peak = 10 if progress == 1 else 1
        assert gradient.tolist() == [[pytest.approx(peak, rel=1e-14), pytest.approx(at_half, rel=1e-7)]]


def test_t_is_no_state_and_keeps_the_precision_of_the_layer():
    estimator = ErrorDecay()
    assert estimator.state_dict() == {}
    for dtype, kept in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
    ):
        estimator.attach(torch.zeros(1, 1, dtype=dtype))
        assert estimator.t.dtype == kept
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(2, 5, dtype=dtype)
        assert ErrorDecay()(x).dtype == activations.create("ede")(x).dtype == dtype


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t_min": 0}, "t_min is 0"),
        ({"t_max": math.inf}, "t_max is inf"),
        ({"t_min": math.nan}, "t_min is nan"),
        ({"t_min": "1e-3"}, "t_min is '1e-3'"),
        ({"t_min": 20.0}, "at least t_min"),
        ({"tmin": 0.1}, "Did you mean 't_min'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        activations.create("ede", **arguments)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3))


def test_advance_moves_the_activation_and_its_gradient():
    model = network()
    eb.binarize_(model, "sign", activation="ede")
    gradients = []
    for progress in (0.0, 1.0, 0.0):
        eb.advance(model, progress)
        x = torch.linspace(-1, 1, 12).view(2, 6).requires_grad_()
        model(x).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(gradients[0], gradients[2])
    assert not torch.allclose(gradients[0], gradients[1], rtol=0.1)


def test_an_activation_with_a_schedule_warns_once_if_it_is_never_advanced():
    x = torch.randn(4, 6)
    model = network()
    eb.binarize_(model, "sign", activation="ede")
    with pytest.warns(UserWarning, match=r"'1' trains.*advance"):
        model(x)
    model(x)  # warnings are errors here
    advanced = network()
    eb.binarize_(advanced, "sign", activation="ede")
    eb.advance(advanced, 0.0)
    advanced(x)


def test_a_compiled_step_is_compiled_once():
    model = network()
    eb.binarize_(model, "sign", activation="ede")
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(8, 6)
    eb.advance(model, 0.0)
    compiled(x.clone().requires_grad_()).sum().backward()
    with torch.compiler.set_stance("fail_on_recompile"):
        for progress in (0.3, 0.9):
            eb.advance(model, progress)
            y = x.clone().requires_grad_()
            z = x.clone().requires_grad_()
            compiled(y).square().sum().backward()
            model(z).square().sum().backward()
            # The compiler may fuse: a few eps of float32.
            torch.testing.assert_close(y.grad, z.grad, rtol=1e-5, atol=1e-6)


def test_a_float64_network_keeps_float64():
    model = network().double()
    eb.binarize_(model, "sign", activation="ede")
    assert model[1].sign_activation.estimator.t.dtype == torch.float64


def test_a_recipe_sets_t():
    recipe = eb.recipes.override(
        eb.recipes.load("digits-digits_net-bi_half-1w32a"), {"activation.name": "ede", "activation.t_min": "0.001"}
    )
    assert recipe.activation == {"name": "ede", "pad_value": 0.0, "t_min": 0.001, "t_max": 10.0}
    layers = [m for m in eb.recipes.build(recipe).modules() if isinstance(m, activations.EDE)]
    assert layers
    assert {layer.estimator.t_min for layer in layers} == {0.001}
