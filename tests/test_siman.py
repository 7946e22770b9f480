"""SiMaN against its slow reference, its two codes, its projection, and its activation."""

import itertools
import math

import numpy as np
import pytest
import torch
from hostile_weights import NAMES, hostile
from reference_methods import siman as reference
from reference_methods.standardized import standardized
from torch import nn
from torch.nn.functional import conv2d, cross_entropy

import equibit as eb
from equibit.errors import InputError, StateError
from equibit.methods import SiMaN

COUNTS = {"half": reference.half, "optimal": reference.optimal}


def attached(latent, *mode):
    method = SiMaN(*mode)
    method.attach(latent.detach())
    return method


def rows(function, *tensors):
    """The reference applied to each filter, or sample."""
    parts = zip(*(x.detach().flatten(1).tolist() for x in tensors), strict=True)
    return torch.tensor([function(*part) for part in parts], dtype=torch.float64).view(tensors[0].shape)


def seeded(shape, seed=1):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", sorted(COUNTS))
def test_weight_and_gradients_against_the_reference(name, mode):
    latent = hostile(name).requires_grad_()
    upstream, method = seeded(latent.shape), attached(latent, mode)
    with torch.no_grad():
        method.learned_scale.copy_(torch.tensor([0.5, -2.0, 0.0, 1.0]))  # training may make it any of these
    scale = method.learned_scale.detach().view(4, *[1] * (latent.dim() - 1)).expand(latent.shape)
    binary = rows(lambda w: reference.binary(w, COUNTS[mode](w)), latent)
    assert torch.equal(method.binary(latent), binary)
    assert torch.equal(method(latent), scale * binary)
    found, of_scale = torch.autograd.grad(method(latent), (latent, method.learned_scale), upstream)
    expected = rows(lambda w, g, a: reference.gradient(w, g, a[0]), latent, upstream, scale)
    # Weights 100 deviations from zero lose 2 of 16 digits in centring, and gradients cancel in the sum over j.
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(of_scale, (upstream * binary).flatten(1).sum(1), rtol=1e-12, atol=1e-12)


def test_golden():
    # mean 0, scale mean |w| = 2, s^2 = 20 / 3; g = (1, 0, 0, 0): u = (-2, 0, 0, 0), mean u = -1/2, sum(u c) = 6, and
    # dL/dw = (u + 1/2 - c 6 / 20) / s = (-0.6, 0.8, 0.2, -0.4) / 2.581989 (the 1e-5 in s changes the seventh digit).
    latent = torch.tensor([[-3.0, -1.0, 1.0, 3.0]], dtype=torch.float64, requires_grad=True)
    weight = attached(latent)(latent)
    assert weight.tolist() == [[2, -2, -2, 2]]
    weight[0, 0].backward()
    assert latent.grad[0].tolist() == pytest.approx([x / 2.581989 for x in (-0.6, 0.8, 0.2, -0.4)], rel=1e-5)


def test_equal_magnitudes_go_by_index_and_zeros_are_equal():
    for latent, expected in (
        ([2.0, -2.0, 2.0, -2.0], [-1, -1, 1, 1]),
        ([0.0, -0.0, -0.0, 0.0], [-1, -1, 1, 1]),
        ([5.0, 5.0, 5.0], [-1, -1, 1]),
        ([7.0], [-1]),
    ):
        assert SiMaN().binary(torch.tensor([latent])).tolist() == [expected]


@pytest.mark.parametrize("n", [2, 9, 36, 577])
def test_exactly_half_of_every_filter_is_plus_one(n):
    for latent in (seeded((6, n)), seeded((6, n)).round(), seeded((6, n)) * 1e-6 + 1, torch.zeros(6, n)):
        for dtype in (torch.float32, torch.bfloat16):
            assert ((SiMaN().binary(latent.to(dtype)) == 1).sum(1) == n // 2).all()


def test_the_code_ignores_shift_and_scale_of_either_sign():
    latent = seeded((8, 100))
    for mode in COUNTS:
        binary = SiMaN(mode).binary(latent)
        for s, t in ((3, 0), (-1, 0), (-0.25, 7), (1, -2)):
            assert torch.equal(SiMaN(mode).binary(s * latent + t), binary)


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_optimal_is_the_best_of_all_codes(n):
    for seed in range(5):
        m = (seeded((1, n), seed) - seeded((1, n), seed).mean()).abs()[0]
        code = (SiMaN("optimal").binary(seeded((1, n), seed))[0] + 1) / 2
        codes = torch.tensor(list(itertools.product((0.0, 1.0), repeat=n))[1:], dtype=torch.float64)
        cosines = codes @ m / codes.sum(1).sqrt()
        # Sums of at most 12 terms of order 1.
        assert float(code @ m / code.sum().sqrt()) == pytest.approx(float(cosines.max()), rel=1e-14)


@pytest.mark.parametrize(
    ("share", "inverse"),
    [
        (1 / math.e, lambda u: -(u - 0.5).sign() * torch.log1p(-2 * (u - 0.5).abs())),  # Laplace
        (0.5405, lambda u: torch.special.ndtri(u)),
        (2 / 3, lambda u: u),
    ],
)
def test_optimal_share_of_known_distributions(share, inverse):
    uniform = torch.rand(1, 100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ones = (SiMaN("optimal").binary(inverse(uniform)) > 0).double().mean()
    assert float(ones) == pytest.approx(share, abs=0.01)  # the cosine is flat around its maximum


def test_the_image_in_zeros_and_ones_gives_the_same_convolution():
    a = torch.randint(-9, 10, (2, 3, 6, 6)).double()
    binary = SiMaN().binary(seeded((4, 3, 3, 3)))
    code = (binary + 1) / 2
    assert torch.equal(conv2d(a, binary), 2 * conv2d(a, code) - conv2d(a, torch.ones_like(code)))


def test_channels_last_weights_are_treated_alike():
    latent, upstream = seeded((4, 3, 3, 3)), seeded((4, 3, 3, 3), 2)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        leaf = latent.clone(memory_format=memory_format).requires_grad_()
        method = attached(leaf)
        weight = method(leaf)
        results.append((weight, torch.autograd.grad(weight, leaf, upstream)[0]))
        method.project_(leaf.detach())
        results[-1] += (leaf.detach(),)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)  # sums in another order


# --- projection and training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_projection_against_the_reference(name, progress):
    latent, method = hostile(name), SiMaN()
    layer = latent.flatten(1).tolist()
    method.advance(progress)
    method.project_(latent)
    expected = torch.tensor(reference.projected(layer, 0.15 * (1 - progress)), dtype=torch.float64)
    # Centring weights around 5 costs a digit of 16.
    torch.testing.assert_close(latent.flatten(1), expected, rtol=1e-12, atol=1e-14)


def test_projection_clips_at_the_percentiles_of_the_layer():
    latent = torch.randn(7, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    deviation = (latent - latent.mean((1, 2, 3), keepdim=True)).abs().numpy()
    low, high = np.percentile(deviation, [15, 85])
    SiMaN().project_(latent)
    assert float(latent.abs().min()) == pytest.approx(low, rel=1e-6)
    assert float(latent.abs().max()) == pytest.approx(high, rel=1e-6)


def test_a_weight_at_its_filters_mean_is_raised_to_the_positive_bound():
    latent = torch.tensor([[0.0, -0.0, 1.0, -1.0], [4.0, -4.0, 2.0, -2.0]])
    SiMaN(clip=0.25).project_(latent)  # |c| = 0, 0, 1, 1, 2, 2, 4, 4: ranks 1.75 and 5.25 give 0.75 and 2.5
    assert latent.tolist() == [[0.75, 0.75, 1, -1], [2.5, -2.5, 2, -2]]


def test_without_clip_the_projection_centres():
    latent = torch.tensor([[1.0, 2.0, 6.0]])
    SiMaN(clip=0).project_(latent)
    assert latent.tolist() == [[-2, -1, 3]]


def test_the_clipped_share_falls_in_a_straight_line():
    method, epochs = SiMaN(), 400
    for epoch, percent in ((0, 15), (200, 7.5), (399, 15 / 400)):
        method.advance(epoch / epochs)
        assert 100 * method.clipped == pytest.approx(percent, rel=1e-12)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


def test_latents_and_scales_get_no_weight_decay():
    model = network()
    eb.binarize_(model, "siman")
    decayed, free = eb.param_groups(model, weight_decay=5e-4)
    original = model[1].parametrizations.weight
    assert {id(p) for p in free["params"]} == {id(original.original), id(original[0].method.learned_scale)}
    assert (decayed["weight_decay"], free["weight_decay"]) == (5e-4, 0)


def test_the_scale_starts_as_the_mean_magnitude_also_of_a_float_checkpoint():
    model, trained = network(), network()
    with torch.no_grad():
        trained[1].weight.mul_(3)
    eb.binarize_(model, "siman")
    scale = model[1].parametrizations.weight[0].method.learned_scale
    for source in (network(), trained):
        model.load_state_dict(source.state_dict())
        assert torch.equal(scale, source[1].weight.abs().mean(1))


def test_before_attach_there_are_bits_and_no_scale():
    latent = hostile("random")
    assert torch.equal(SiMaN().binary(latent), attached(latent).binary(latent))
    with pytest.raises(StateError, match="attach"):
        SiMaN().scale(latent)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"mode": "halve"}, "Did you mean 'half'"), ({"clip": 0.5}, "clip"), ({"clip": -0.1}, "clip")],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        SiMaN(**arguments)


# --- activation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 3, 2), (2, 3, 5), (4, 1)])
def test_activation_against_the_reference(shape):
    x, upstream = seeded(shape).requires_grad_(), seeded(shape, 2)
    signs = eb.activations.create("siman")(x)
    assert torch.equal(signs, rows(lambda s: [1.0 if h >= 0 else -1.0 for h in standardized(s, len(s) - 1)], x))
    (gradient,) = torch.autograd.grad(signs, x, upstream)
    expected = rows(reference.activation_gradient, x, upstream)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)  # sums of at most 24 terms of order 1


def test_activation_takes_what_a_relu_gives_and_constant_samples():
    activation = eb.activations.create("siman")
    signs = activation(torch.randn(6, 50).relu())
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    for value in (0.0, -0.0, 0.1, -1 / 3, 1e-30):
        constant = torch.full((2, 3, 7), value, requires_grad=True)
        signs = activation(constant)
        assert (signs == 1).all()
        signs.sum().backward()
        assert constant.grad.abs().max() == 0


def test_activation_of_a_value_at_the_mean_is_plus_one():
    x = torch.tensor([[0.0, 3.0, 6.0], [-0.7, -0.7, -0.7]])
    assert eb.activations.create("siman")(x).tolist() == [[-1, 1, 1], [1, 1, 1]]


def test_activation_does_not_mix_samples():
    x, activation = torch.randn(5, 3, 4, 4), eb.activations.create("siman")
    assert torch.equal(activation(x), torch.cat([activation(sample) for sample in x.split(1)]))
    assert torch.equal(activation(3 * x + 1), activation(x))


def test_activation_standardises_half_types_in_float32():
    x = torch.randn(4, 300).half()
    signs = eb.activations.create("siman")(x)
    assert signs.dtype == torch.float16
    assert torch.equal(signs.float(), eb.activations.create("siman")(x.float()))


def test_activation_compiles_to_one_graph():
    conv, x = nn.Conv2d(2, 3, 3), torch.randn(4, 2, 6, 6)
    eb.binarize_(conv, "siman", activation="siman", skip=eb.nothing)
    eb.advance(conv, 0.0)
    gradients = []
    for call in (conv, torch.compile(conv, fullgraph=True, backend="aot_eager")):
        leaf = x.clone().requires_grad_()
        call(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)  # the same float32 operations, perhaps fused


def test_a_binary_network_behind_relus_trains_and_is_deployed(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(16, 1, 8, 8)
    model = eb.models.create("digits_net", num_classes=10, in_shape=(1, 8, 8))
    eb.binarize_(model, "siman", activation="siman")
    optimizer = torch.optim.SGD(eb.param_groups(model, 1e-4), lr=0.05)
    losses = []
    for step in range(8):
        eb.advance(model, step / 8)
        optimizer.zero_grad()
        loss = cross_entropy(model(x), torch.arange(16) % 10)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    model.eval()
    packed = eb.pack(model)
    assert torch.equal(packed(x), model(x))
    eb.save_packed(packed, tmp_path / "m.safetensors")
    fresh = eb.models.create("digits_net", num_classes=10, in_shape=(1, 8, 8))
    assert torch.equal(eb.load_packed(tmp_path / "m.safetensors", fresh)(x), model(x))
    eb.export_onnx(model, tmp_path / "m.onnx", x)
    assert eb.verify_onnx(model, tmp_path / "m.onnx", x).ok
