"""binarize_ and its traps: what users do with a model before, during and after training."""

import copy
import io
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import equibit as eb
from equibit.errors import InputError, StateError
from equibit.layers import binary_layers
from equibit.methods import Method


def network(**conv):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 12, 3, **({"padding": 1} | conv)),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 20),
        nn.Linear(20, 10),
    )


X = torch.randn(4, 3, 7, 7, generator=torch.Generator().manual_seed(1))


# --- what becomes binary ---------------------------------------------------------------------------------------------


def test_default_policy_keeps_first_and_last_float_and_the_report_says_so():
    model = network()
    report = eb.binarize_(model, "bi_half")
    assert report.binary == ["2", "7"]
    assert report.float == ["0", "8"]
    assert {r.reason for r in report.layers if not r.method} == {"kept by policy"}
    assert "bi_half" in report.table()
    assert set(eb.binary_weights(model)) == {"2.weight", "7.weight"}


def test_first_only_keeps_one_layer_float():
    report = eb.binarize_(network(), "bi_half", skip=eb.first_only)
    assert report.float == ["0"]
    assert report.binary == ["2", "7", "8"]
    assert eb.first_only([]) == []


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(9, 6), (2, 9)),
        (nn.Conv1d(4, 6, 3, groups=2, dilation=2), (2, 4, 9)),
        (nn.Conv2d(4, 6, (3, 5), stride=2, padding=(1, 2), groups=2), (2, 4, 9, 9)),
        (nn.Conv3d(2, 4, 3, padding=1, bias=False), (2, 2, 4, 4, 4)),
    ],
)
@pytest.mark.parametrize("method", [eb.BiHalf(0.3), eb.Sign(scale="mean_abs"), eb.BiHalf(density=0.5)])
def test_a_layer_computes_with_its_binary_weight(layer, shape, method):
    layer = copy.deepcopy(layer)
    latent = layer.weight.detach().clone()
    eb.binarize_(layer, method, skip=eb.nothing)
    x = torch.randn(shape)
    scale = method.scale(latent).reshape(-1, *[1] * (latent.dim() - 1))
    reference = copy.deepcopy(layer).eval()
    plain = type(layer).__mro__[1]._conv_forward if isinstance(layer, nn.modules.conv._ConvNd) else None
    weight = scale * method.binary(latent)
    direct = plain(reference, x, weight, reference.bias) if plain else nn.functional.linear(x, weight, reference.bias)
    assert torch.equal(layer(x), direct)
    assert torch.equal(eb.binary_weights(layer)["weight"], method.binary(latent))


def test_policies_and_overrides():
    model = eb.models.create("resnet18", block="bireal")
    report = eb.binarize_(copy.deepcopy(model), "sign", skip=eb.first_last_and_shortcuts)
    assert not any("downsample" in name for name in report.binary)
    assert len(report.binary) == 16
    report = eb.binarize_(
        copy.deepcopy(model), eb.BiHalf(), skip=eb.nothing, overrides={"re:.*downsample.*": None, "head": eb.Sign()}
    )
    assert {r.name: r.method for r in report.layers}["head"] == "sign"
    assert len(report.binary) == 18
    kept = eb.binarize_(copy.deepcopy(model), "sign", overrides={"re:.*": None, "head": "bi_half"})
    assert kept.binary == ["head"]  # an override beats skip, the last match wins


def test_each_layer_has_its_own_copy_of_the_method():
    method, model = eb.BiHalf(), network()
    eb.binarize_(model, method, skip=eb.nothing)
    copies = {id(layer.method) for layer in binary_layers(model)}
    assert len(copies) == 4
    assert id(method) not in copies
    assert [layer.method.layer for layer in binary_layers(model)] == ["0", "2", "7", "8"]


class OwnForward(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.rnn = nn.LSTM(8, 8)
        self.own = OwnForward(8, 8)
        self.normed = parametrizations.weight_norm(nn.Linear(8, 8))
        self.plain = nn.Linear(8, 8)
        self.product = nn.Bilinear(8, 8, 2)
        self.head = nn.Linear(8, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_what_cannot_be_binarised_stays_float_with_a_reason():
    report = eb.binarize_(Odd(), "bi_half", skip=eb.nothing)
    assert report.binary == ["plain"]
    reasons = {r.name: r.reason for r in report.layers if not r.method}
    assert "attention" in reasons["attention.out_proj"]
    assert "forward of its own" in reasons["own"]
    assert "parametrised" in reasons["normed"]
    assert "shares" in reasons["head"]
    assert "shares" in reasons["embedding"]
    assert reasons["rnn"] == reasons["attention"] == reasons["product"] == "not a Linear or Conv layer"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "bihalf"}, "Did you mean 'bi_half'"),
        ({"method": 3}, "is not a method"),
        ({"method": "sign", "overrides": {"3": "sign"}}, "'3' matches no eligible layer"),
        ({"method": "sign", "overrides": {"re:stage.*": None}}, "matches no eligible layer"),
        ({"method": "sign", "overrides": {"re:.*": None}}, "no layer would become binary"),
        ({"method": "sign", "activation": "relu"}, "unknown activation"),
        ({"method": "sign", "activation": eb.activations.BiReal}, "is not a sign activation"),
        ({"method": "sign", "skip": lambda layers: ["nowhere"]}, "nowhere"),
    ],
)
def test_bad_input_changes_nothing(arguments, message):
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=message):
        eb.binarize_(model, **arguments)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    eb.binarize_(model, "sign")


def test_a_model_without_eligible_layers_is_refused_with_the_reasons():
    with pytest.raises(InputError, match=r"no layer to binarise.*'0' \(not a Linear"):
        eb.binarize_(nn.Sequential(nn.Embedding(3, 4)), "sign")


def test_nan_is_refused_and_named():
    model = network()
    with torch.no_grad():
        model[7].weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="'7' holds NaN"):
        eb.binarize_(model, "sign")
    model = network()
    eb.binarize_(model, "sign")
    with torch.no_grad():
        model[7].parametrizations.weight.original[0, 0] = torch.nan
    for call in (eb.binary_weights, eb.pack):
        with pytest.raises(InputError, match="'7' holds NaN"):
            call(model)


def test_binarising_twice_and_reading_a_float_model_are_errors():
    model = network()
    with pytest.raises(StateError, match="no binary layer"):
        eb.binary_weights(model)
    eb.binarize_(model, "sign")
    with pytest.raises(InputError, match="already"):
        eb.binarize_(model, "sign")


# --- the known traps -------------------------------------------------------------------------------------------------


def test_trap_1_a_float_checkpoint_loads_after_binarize():
    trained, model = network(), network()
    with torch.no_grad():
        for p in trained.parameters():
            p.normal_()
    eb.binarize_(model, "bi_half")
    model.load_state_dict(trained.state_dict())  # strict
    assert torch.equal(eb.binary_weights(model)["2.weight"], eb.BiHalf().binary(trained[2].weight))
    again = network()
    eb.binarize_(again, "bi_half")
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(X), model(X))


def test_trap_2_a_deep_copy_is_independent():
    model = network()
    eb.binarize_(model, "bi_half")
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[2].parametrizations.weight.original.neg_()
    assert torch.equal(eb.binary_weights(model)["2.weight"], eb.BiHalf().binary(network()[2].weight))
    other.load_state_dict(network().state_dict())
    assert torch.equal(other.eval()(X), model.eval()(X))
    eb.pack(other)
    assert torch.equal(other(X), model(X))


def test_trap_3_state_dicts_are_saved_not_modules():
    model = network()
    eb.binarize_(model, "bi_half")
    with pytest.raises(RuntimeError, match="state_dict"):
        torch.save(model, io.BytesIO())


def counted(model):
    """The number of times the method of layer 2 computes its weight, as a list that grows."""
    calls = []
    method = model[2].parametrizations.weight[0].method
    forward = method.forward
    method.forward = lambda latent: calls.append(1) or forward(latent)
    return calls


def test_trap_4_the_effective_weight_is_kept_in_eval_and_never_stale():
    model = network()
    eb.binarize_(model, "bi_half")
    model.eval()
    calls = counted(model)
    with torch.no_grad():
        first = model(X)
        assert torch.equal(model(X), first)
        assert len(calls) == 1
        latent = model[2].parametrizations.weight.original
        latent.data.neg_()  # no version counter moves
        assert not torch.equal(model(X), first)
        latent.neg_()
        assert torch.equal(model(X), first)
        assert len(calls) == 3
    with torch.inference_mode():
        assert torch.equal(model(X), first)
        latent.data.neg_()
        assert torch.equal(model(X), model(X))
        assert len(calls) == 4  # kept in inference mode too
    with torch.no_grad():
        assert not torch.equal(model(X), first)
        latent.neg_()
        assert torch.equal(model(X), first)
    assert model(X).requires_grad  # a weight kept in inference mode is never used where gradients flow
    kept = model[2].parametrizations.weight[0]._kept
    assert kept is not None
    copied = copy.deepcopy(model)
    assert copied[2].parametrizations.weight[0]._kept is None
    assert not any("kept" in name for name in model.state_dict())
    model.train()
    assert model[2].parametrizations.weight[0]._kept is None


def test_trap_4_gradients_flow_in_eval_and_every_training_forward_assigns_anew():
    model = network()
    eb.binarize_(model, "bi_half")
    calls = counted(model)
    latent = model[2].parametrizations.weight.original
    for _ in range(2):  # two micro-batches, two backward passes
        model(X).sum().backward()
    assert len(calls) == 2
    model.eval()
    latent.grad = None
    model(X).sum().backward()
    assert latent.grad.abs().sum() > 0


@pytest.mark.parametrize("activation", [None, "bireal"])
@pytest.mark.parametrize("method", [eb.BiHalf(), eb.BiHalf(density=0.5), eb.Sign(scale="mean_abs", ste="clip")])
def test_trap_5_compile_fullgraph_and_export_agree_with_eager(method, activation):
    model = network()
    model[4] = nn.Identity()
    eb.binarize_(model, method, activation=activation)
    model.eval()
    eager = model(X)
    eager.square().sum().backward()
    latent = model[2].parametrizations.weight.original
    gradient, latent.grad = latent.grad, None
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    output = compiled(X)
    output.square().sum().backward()
    # The same float32 kernels in the same order, but the compiler may fuse: a few eps of the largest value.
    torch.testing.assert_close(output, eager, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(latent.grad, gradient, rtol=1e-4, atol=1e-4)
    exported = torch.export.export(model, (X,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    torch.testing.assert_close(exported(X[:3]), eager[:3], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own use of torch.jit
def test_trap_5_inductor_agrees_with_eager():
    model = network()
    eb.binarize_(model, "bi_half")
    output = torch.compile(model, fullgraph=True)(X)
    torch.testing.assert_close(output, model(X), rtol=1e-5, atol=1e-5)


def test_trap_6_autocast_keeps_the_exact_bits():
    model = network()
    eb.binarize_(model, "bi_half")
    bits = eb.binary_weights(model)
    seen = {}
    model[2].register_forward_hook(lambda m, _i, _o: seen.update(weight=m.weight.detach()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(X)
        assert all(torch.equal(a, b) for a, b in zip(eb.binary_weights(model).values(), bits.values(), strict=True))
    assert torch.equal(seen["weight"].sign(), bits["2.weight"])
    assert seen["weight"].dtype == torch.float32
    # bfloat16 keeps 8 bits, so products differ by 2^-8 relative; sums of some hundred terms stay within a few percent.
    torch.testing.assert_close(output.float(), model(X), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("pad_value", [-1.0, 0.0, 1.0])
def test_trap_7_a_1w1a_convolution_pads_after_the_sign(pad_value):
    conv = nn.Conv2d(2, 4, 3, padding=(1, 2), bias=False)
    eb.binarize_(conv, "sign", activation=eb.activations.create("sign", pad_value), skip=eb.nothing)
    x = torch.randn(2, 2, 5, 5)
    signs = nn.functional.pad(torch.where(x >= 0, 1.0, -1.0), (2, 2, 1, 1), value=pad_value)
    assert torch.equal(conv(x), nn.functional.conv2d(signs, conv.weight))


# --- training --------------------------------------------------------------------------------------------------------


class Scheduled(Method):
    """A stand-in for methods with a schedule, a projection and no L2."""

    key = "scheduled"
    forbids_l2 = True
    needs_advance = True

    def __init__(self):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1))
        self.progress = None

    def assign(self, latent):
        return torch.where(latent >= 0, 1.0, -1.0)

    def factors(self, latent, binary):
        return self.alpha.expand(len(latent)), None

    def advance(self, progress):
        self.progress = progress

    def project_(self, latent):
        latent.clamp_(-0.01, 0.01)


def test_param_groups_free_latents_from_weight_decay_only_where_the_method_says_so():
    model = network()
    eb.binarize_(model, "bi_half")
    (group,) = eb.param_groups(model, weight_decay=5e-4)
    assert group["weight_decay"] == 5e-4
    assert len(group["params"]) == len(list(model.parameters()))
    model = network()
    eb.binarize_(model, Scheduled())
    decayed, free = eb.param_groups(model, weight_decay=5e-4)
    assert (decayed["weight_decay"], free["weight_decay"]) == (5e-4, 0)
    assert len(free["params"]) == 4  # two latents, two scales
    assert len(decayed["params"]) + 4 == len(list(model.parameters()))
    torch.optim.SGD(eb.param_groups(model, 1e-4), lr=0.1)


def test_advance_moves_every_schedule_and_projects():
    model = network()
    eb.binarize_(model, Scheduled())
    eb.advance(model, 0.25)
    assert model[2].parametrizations.weight[0].method.progress == 0.25
    assert model[2].parametrizations.weight.original.abs().max() <= 0.01
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="progress"):
            eb.advance(model, wrong)
    eb.advance(network(), 0.5)  # a float model is left alone


def test_a_method_that_needs_advance_warns_once_if_it_is_never_called():
    model = network()
    eb.binarize_(model, Scheduled())
    with pytest.warns(UserWarning, match="advance"):
        model(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(X)
        advanced = network()
        eb.binarize_(advanced, Scheduled())
        eb.advance(advanced, 0.0)
        advanced(X)


def test_a_training_step_moves_latents_and_keeps_the_bits_exact():
    model = network()
    eb.binarize_(model, "bi_half")
    optimizer = torch.optim.SGD(eb.param_groups(model, 1e-4), lr=0.5)
    before = eb.binary_weights(model)
    for step in range(5):
        eb.advance(model, step / 5)
        loss = nn.functional.cross_entropy(model(X), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = eb.binary_weights(model)
    assert eb.analysis.flip_rate(before, after) > 0
    for weight in after.values():
        assert (eb.analysis.bit_ratio(weight) == 0.5).all()
