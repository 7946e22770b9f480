"""Multi-prize tickets: against the reference, worked by hand, and from training to the exported file."""

import copy
import itertools

import numpy as np
import pytest
import torch
from reference_methods import multi_prize as reference
from torch import nn

import equibit as eb
from equibit.errors import InputError, StateError
from equibit.layers import binary_layers
from equibit.methods import MultiPrize, check_method

SHAPES = ((3, 10), (5, 9), (2, 3, 5), (4, 3, 3, 3), (3, 1))
MODES = [
    {"density": density, "equal_bits": equal_bits}
    for density, equal_bits in itertools.product((0.1, 0.35, 0.5, 1.0), ("off", "signs", "exact"))
]


def attached(weight, scores, **arguments):
    """A method with given scores, in the precision of the weight."""
    method = MultiPrize(**arguments)
    method.attach(weight)
    method.scores.data = scores.to(weight.dtype)
    return method


def cases():
    """Random, tied and hostile weights and scores of every shape."""
    generator = torch.Generator().manual_seed(0)
    for shape in SHAPES:
        weight, scores = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        yield weight, scores
        yield (weight * 2).round(), (scores * 2).round()  # many ties, zeros of both signs
        yield torch.zeros(shape, dtype=torch.float64), -torch.zeros(shape, dtype=torch.float64)
        yield weight * 1e-300, scores * 1e300


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_forward_and_gradient_are_those_of_the_reference(mode):
    count = 0
    for weight, scores in cases():
        method, upstream = attached(weight, scores, **mode), torch.linspace(-1, 2, weight.numel()).double()
        upstream = upstream.view(weight.shape)
        effective = method(weight)
        effective.backward(upstream)
        wanted = reference.layer(weight.numpy(), scores.numpy(), upstream.numpy(), **mode)
        found = method.binary(weight), method.scale(weight), effective.detach(), method.scores.grad
        assert np.array_equal(found[0], wanted[0])
        # Means of at most 108 values, summed in another order: 1e-13 is a thousand roundings.
        np.testing.assert_allclose(found[1], np.full(len(weight), wanted[1]), rtol=1e-13, atol=0)
        np.testing.assert_allclose(found[2], wanted[2], rtol=1e-13, atol=0)
        np.testing.assert_allclose(found[3], wanted[3], rtol=1e-15, atol=0)
        count += 1
    assert count == 20


def test_worked_by_hand():
    weight = torch.tensor([[0.5, -2.0, 1.0], [-4.0, 3.0, -0.0]], dtype=torch.float64)
    scores = torch.tensor([[0.1, -0.9, 0.2], [0.5, -0.2, 0.0]], dtype=torch.float64)
    upstream = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64)
    method = attached(weight, scores, density=0.4)  # ceil(2.4) = 3 stay: 0.9, 0.5, and of the two 0.2 the second
    assert method.binary(weight).tolist() == [[0, -1, 0], [-1, 1, 0]]
    assert method.scale(weight).tolist() == [3, 3]  # (2 + 4 + 3) / 3
    method(weight).backward(upstream)
    # g W sign(S); the zero score counts as positive, its weight is 0
    assert method.scores.grad.tolist() == [[0.5, 4.0, 3.0], [-16.0, -15.0, -0.0]]
    signs = attached(weight, scores, density=0.4, equal_bits="signs")  # 1 of 3 negative in each filter
    assert signs.binary(weight).tolist() == [[0, -1, 0], [-1, 1, 0]]
    exact = attached(weight, scores, density=0.4, equal_bits="exact")  # floor(0.6) negative, ceil(0.6) positive
    assert exact.binary(weight).tolist() == [[0, 0, 1], [0, 1, 0]]
    assert exact.scale(weight).tolist() == [2, 2]  # (1 + 3) / 2


@pytest.mark.parametrize("density", [0.1, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("n", [1, 2, 9, 10, 1000])
def test_counts_are_exact(n, density):
    weight = torch.randn(7, n)
    kept = {mode: attached(weight, torch.randn(7, n), density=density, equal_bits=mode) for mode in ("off", "exact")}
    percent = round(100 * density)
    assert int(kept["off"].binary(weight).abs().sum()) == -(-percent * 7 * n // 100)  # ceil, in integers
    binary = kept["exact"].binary(weight)
    assert ((binary < 0).sum(1) == percent * n // 200).all()
    assert ((binary > 0).sum(1) == -(-percent * n // 200)).all()


def test_no_gradient_reaches_the_weights_or_passes_through_alpha():
    weight = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    method = attached(weight.detach(), torch.randn(4, 9))
    upstream = torch.zeros(4, 9, dtype=torch.float64)
    upstream[2, 3] = 1
    method(weight).backward(upstream)
    assert weight.grad is None
    assert method.scores.grad.nonzero().tolist() == [[2, 3]]  # through alpha it would reach every kept weight


def test_initial_values():
    weight = torch.randn(200, 50)
    torch.manual_seed(3)
    drawn, method = MultiPrize().initial(weight), MultiPrize()
    method.attach(drawn)
    scores = method.scores.detach()
    # 10,000 draws: the deviation is known to 1 / sqrt(2 * 10000) = 0.7 %, so 3 % is four standard errors.
    assert float(drawn.std()) == pytest.approx((2 / 50) ** 0.5, rel=0.03)
    assert method.scores.requires_grad
    assert float(scores.abs().max()) <= 50**-0.5
    assert float(scores.std()) == pytest.approx((3 * 50) ** -0.5, rel=0.03)
    signed = MultiPrize(init="sc").initial(torch.tensor([[0.3, -0.1, 0.0, -0.0]]))
    assert signed[0].tolist() == pytest.approx([0.5**0.5 * side for side in (1, -1, 1, 1)])


def test_wrong_arguments():
    for arguments in ({"scope": "network"}, {"init": "he"}, {"equal_bits": "on"}, {"density": 0}):
        with pytest.raises(InputError, match=next(iter(arguments))):
            MultiPrize(**arguments)
    with pytest.raises(InputError, match="scope='layer'"):
        MultiPrize(scope="global", equal_bits="exact")
    with pytest.raises(StateError, match="attach"):
        MultiPrize().binary(torch.randn(2, 3))


@pytest.mark.parametrize("arguments", [{"scope": "global"}, {"init": "sc"}, {"equal_bits": "exact", "density": 0.3}])
def test_contract_suite(arguments):
    assert check_method(MultiPrize(**arguments)) == 375


def test_nan_in_the_scores_is_refused_by_name():
    model = nn.Sequential(nn.Linear(4, 3))
    eb.binarize_(model, "multi_prize", skip=eb.nothing)
    next(binary_layers(model)).method.scores.data[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"score.*'0'.*NaN"):
        eb.binary_weights(model)


# --- a network -------------------------------------------------------------------------------------------------------


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)
        self.norm = nn.BatchNorm2d(6, affine=False)
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        return self.head(self.norm(self.up(self.stem(x).relu())).relu().mean((2, 3)))


X = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
TARGET = torch.arange(16) % 10


def network(seed=0, overrides=None, **arguments):
    torch.manual_seed(seed)
    model = Network()
    eb.binarize_(model, MultiPrize(**arguments), skip=eb.nothing, overrides=overrides)
    return model


def train(model, steps=2, start=0, optimizer=None):
    optimizer = optimizer or torch.optim.SGD(eb.param_groups(model, weight_decay=1e-2), lr=2.0, momentum=0.9)
    model.train()
    for step in range(start, start + steps):
        eb.advance(model, step / 10)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), TARGET).backward()
        optimizer.step()
    return optimizer


def test_the_optimiser_trains_scores_and_leaves_the_weights():
    model = network()
    layers = list(binary_layers(model))
    frozen = [layer.latent.clone() for layer in layers]
    trained = {id(p) for group in eb.param_groups(model, weight_decay=1e-2) for p in group["params"]}
    assert all(id(layer.latent) not in trained and id(layer.method.scores) in trained for layer in layers)
    scores, before = [layer.method.scores.clone() for layer in layers], eb.binary_weights(model)
    train(model)
    assert all(torch.equal(layer.latent, w) for layer, w in zip(layers, frozen, strict=True))
    assert not any(torch.equal(layer.method.scores, s) for layer, s in zip(layers, scores, strict=True))
    after = eb.binary_weights(model)
    assert eb.analysis.flip_rate(before, after) > 0
    assert all((after[name].abs().sum() == before[name].abs().sum()) for name in after)  # the density stays


@pytest.mark.parametrize("init", ["kn", "sc"])
def test_the_weights_of_the_network_are_drawn_anew_or_give_their_signs(init):
    torch.manual_seed(0)
    given = Network().state_dict()
    model = network(0, init=init)
    for layer in binary_layers(model):
        weight = given[f"{layer.name}.weight"]
        constant = (2 / layer.filters[0].numel()) ** 0.5
        if init == "sc":
            torch.testing.assert_close(layer.latent.detach(), constant * eb.activations.sign(weight))
        else:
            assert not torch.equal(layer.latent, weight)
            assert len(layer.latent.unique()) == weight.numel()


@pytest.mark.parametrize("init", ["kn", "sc"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_float_checkpoint_loads_as_if_binarised_after_it(init, scope):
    torch.manual_seed(5)
    checkpoint = Network().state_dict()
    given = {name: value.clone() for name, value in checkpoint.items()}
    first = Network()
    first.load_state_dict(checkpoint)
    torch.manual_seed(6)
    eb.binarize_(first, MultiPrize(init=init, scope=scope), skip=eb.nothing)
    second = network(7, init=init, scope=scope)
    torch.manual_seed(6)
    second.load_state_dict(checkpoint)
    wanted, found = first.state_dict(), second.state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert not any(layer.latent.requires_grad for layer in binary_layers(second))
    assert checkpoint.keys() == given.keys()
    assert all(torch.equal(checkpoint[name], given[name]) for name in given)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_state_dict_resumes_to_the_same_numbers(scope):
    whole, part = network(scope=scope), network(scope=scope)
    train(whole, 4)
    optimizer = train(part, 2)
    resumed = network(9, scope=scope)
    resumed.load_state_dict(part.state_dict())
    again = torch.optim.SGD(eb.param_groups(resumed, weight_decay=1e-2), lr=2.0, momentum=0.9)
    again.load_state_dict(optimizer.state_dict())
    assert torch.equal(resumed.eval()(X), part.eval()(X))  # without a call of advance
    train(resumed, 2, start=2, optimizer=again)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_the_global_selection_is_that_of_the_reference_over_all_layers():
    model = network(scope="global", density=0.3)
    layers = list(binary_layers(model))
    for layer in layers:
        layer.method.scores.data.mul_(20).round_()  # ties within layers and across
    eb.advance(model, 0.5)
    scores = [layer.method.scores.detach().double().numpy() for layer in layers]
    kept = reference.masks(scores, [None] * len(scores), 0.3, "off")
    for layer, mask in zip(layers, kept, strict=True):
        latent = layer.filters.detach().double().numpy()
        wanted = reference.layer(latent, mask, np.zeros_like(mask), 0.3, mask=mask)
        assert np.array_equal(layer.method.binary(layer.filters), wanted[0])
    shares = [float(layer.binary().abs().mean()) for layer in layers]
    assert max(shares) > min(shares)
    total = sum(layer.latent.numel() for layer in layers)
    assert sum(int(layer.binary().abs().sum()) for layer in layers) == -(-3 * total // 10)


def test_the_stored_selection_stays_until_the_next_advance():
    model = network(scope="global")
    eb.advance(model, 0)
    before = eb.binary_weights(model)
    for layer in binary_layers(model):
        layer.method.scores.data = torch.randn_like(layer.method.scores)
    assert eb.analysis.flip_rate(before, eb.binary_weights(model)) == 0
    eb.advance(model, 0)
    assert eb.analysis.flip_rate(before, eb.binary_weights(model)) > 0


def test_global_errors_name_the_layer_and_the_densities():
    model = network(scope="global", density=0.01)
    next(layer for layer in binary_layers(model) if layer.name == "head").method.scores.data.mul_(1e-6)
    with pytest.raises(StateError, match=r"0\.01.*'head'"):
        eb.advance(model, 0)
    mixed = network(scope="global", overrides={"head": MultiPrize(scope="global", density=0.9)})
    with pytest.raises(InputError, match=r"0\.5, 0\.9"):
        eb.advance(mixed, 0)
    own = network(scope="global", overrides={"head": MultiPrize(density=0.9)})  # chooses for itself
    eb.advance(own, 0)


def test_global_warns_once_without_advance():
    model = network(scope="global").train()
    with pytest.warns(UserWarning, match="never called"):
        model(X)


def test_a_running_average_keeps_the_frozen_weights_and_selects_anew():
    model = network(scope="global")
    formula = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=formula, use_buffers=True)
    optimizer = train(model, 1)
    average.update_parameters(model)
    train(model, 1, 1, optimizer)
    average.update_parameters(model)
    eb.advance(average.module, 0.5)
    for layer, other in zip(binary_layers(model), binary_layers(average.module), strict=True):
        assert torch.equal(layer.latent, other.latent)
        assert not torch.equal(layer.method.scores, other.method.scores)


def small(activation):
    """Two layers to binarise between two that stay float; no ReLU where signs follow."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.Hardtanh() if activation else nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8, affine=False),
        nn.Flatten(),
        nn.Linear(288, 20),
        nn.Linear(20, 10),
    )


@pytest.mark.parametrize(
    ("arguments", "activation"),
    [
        ({}, None),
        ({"density": 0.2, "scope": "global"}, "bireal"),
        ({"equal_bits": "exact"}, None),
        ({"density": 1.0}, "bireal"),
    ],
    ids=str,
)
def test_from_training_to_the_file(arguments, activation, tmp_path):
    model = small(activation)
    eb.binarize_(model, MultiPrize(**arguments), activation=activation)
    train(model)
    model.eval()
    packed = eb.pack(model)
    assert torch.equal(packed(X), model(X))
    eb.save_packed(packed, tmp_path / "m.safetensors")
    loaded = eb.load_packed(tmp_path / "m.safetensors", small(activation))
    assert torch.equal(loaded(X), model(X))
    eb.export_onnx(model, tmp_path / "m.onnx", X[:1])
    assert eb.verify_onnx(model, tmp_path / "m.onnx", X).ok


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_training_step_compiles_whole_and_once(scope):
    model = network(scope=scope)
    torch._dynamo.reset()  # the code of another model's forward is the same
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        train(compiled, 3)
    train(model, 3)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[f"_orig_mod.{name}"], value)
