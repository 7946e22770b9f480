"""The five modes of the pruning ablation: sign, bi-half, both pruned, and pruned bi-half with its variance kept."""

import numpy as np
import pytest
import torch
from reference_methods import pruning as reference
from rounding import assert_rounding
from torch import nn

import equibit as eb
from equibit.methods import BiHalf, Sign

MODES = {
    1: lambda density: Sign(),
    2: lambda density: BiHalf(),
    3: lambda density: Sign(density=density),
    4: lambda density: BiHalf(density=density),
    5: lambda density: BiHalf(density=density, rescale=True),
}
DENSITIES = (0.05, 0.2, 0.5, 0.9)  # 0.2 is the default of the ablation: 80 % pruned


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("mode", MODES)
def test_values_and_gradients_are_those_of_the_reference(mode, density):
    generator = torch.Generator().manual_seed(mode)
    count = 0
    for shape in ((4, 10), (3, 9), (5, 2, 3, 3), (6, 1)):
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        for weight in (normal, (normal * 2).round() / 2, torch.zeros(shape).double(), normal * 1e-310, -normal.abs()):
            method, leaf = MODES[mode](density), weight.clone().requires_grad_()
            upstream = torch.randn(shape, generator=generator, dtype=torch.float64)
            method(leaf).backward(upstream)
            binary, scale = reference.mode(mode, weight.numpy(), density)
            assert np.array_equal(method.binary(weight), binary)
            # One product of two factors that are each rounded once or twice.
            torch.testing.assert_close(method(weight), torch.from_numpy(scale * binary), rtol=1e-15, atol=0)
            torch.testing.assert_close(leaf.grad, scale * upstream, rtol=1e-15, atol=0)
            count += 1
    assert count == 20


def test_worked_by_hand():
    weight = torch.tensor([[0.1, -0.5, 3.0, -2.0], [0.1, 0.2, 0.3, -0.1]])
    found = {number: make(0.5).binary(weight).tolist() for number, make in MODES.items()}
    assert found[1] == [[1, -1, 1, -1], [1, 1, 1, -1]]
    assert found[2] == [[1, -1, 1, -1], [-1, 1, 1, -1]]
    assert found[3] == [[0, -1, 1, -1], [0, 0, 1, 0]]  # over the layer: a filter may lose most of its weights
    assert found[4] == [[0, 0, 1, -1], [0, 0, 1, -1]]  # by rank within the filter, not by magnitude
    assert found[5] == found[4]
    assert float(MODES[5](0.25).scale(weight)[0]) == pytest.approx(2 * 0.5**0.5)  # sqrt(2 / 4) / sqrt(0.25)


def test_the_rescaled_weight_keeps_its_variance():
    weight = torch.randn(64, 1000)
    whole = float(BiHalf()(weight).var())
    for density in (0.1, 0.5):
        assert float(BiHalf(density=density, rescale=True)(weight).var()) == pytest.approx(whole, rel=1e-4)
        assert float(BiHalf(density=density)(weight).var()) == pytest.approx(density * whole, rel=1e-4)


@pytest.mark.parametrize("n", [1, 9, 10, 27])
@pytest.mark.parametrize("percent", [1, 20, 33, 80, 99])
def test_kept_counts_are_exact(n, percent):
    weight = torch.randn(7, n)
    assert int(Sign(density=percent / 100).binary(weight).abs().sum()) == -(-percent * 7 * n // 100)
    binary = BiHalf(density=percent / 100).binary(weight)
    assert ((binary < 0).sum(1) == percent * n // 200).all()
    assert ((binary > 0).sum(1) == -(-percent * n // 200)).all()


@pytest.mark.parametrize("mode", [3, 4, 5])
def test_flips_count_pruned_weights_and_the_file_keeps_them(mode, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 10))
    eb.binarize_(model, MODES[mode](0.4))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    x, before = torch.randn(16, 1, 8, 8), eb.binary_weights(model)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.arange(16) % 10).backward()
        optimizer.step()
    after = eb.binary_weights(model)
    (name,) = after
    changed = before[name] != after[name]
    assert (changed & ((before[name] == 0) != (after[name] == 0))).any()
    assert eb.analysis.flip_rate(before, after) == pytest.approx(float(changed.float().mean()))
    packed = eb.pack(model.eval())
    assert_rounding(packed(x), model(x))
    eb.export_onnx(model, tmp_path / "m.onnx", x[:1])
    assert eb.verify_onnx(model, tmp_path / "m.onnx", x).ok
