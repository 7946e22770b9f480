"""What a changed layer does to the loss, against losses worked by hand."""

import pytest
import torch
from torch import nn

import equibit as eb
from equibit.analysis import sensitivity
from equibit.analysis.ablation import _flipped
from equibit.errors import InputError


def test_of_a_loss_that_is_known():
    """One filter of four weights and an input of ones: its output is scale times the sum of the bits."""
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[3.0, 4, -1e-9, 0]])
    model = nn.Sequential(layer)
    eb.binarize_(model, eb.Sign(scale="none"), skip=eb.nothing)
    seen = []
    (found,) = sensitivity(model, lambda: seen.append(float(model(torch.ones(1, 4)))) or seen[-1], share=0.5, draws=20)
    assert seen[0] == 2.0  # + + - +
    assert seen[1] == pytest.approx(7 * 2 / 5)  # the latents, of norm 5, scaled to the norm 2 of the bits
    assert set(seen[2:]) == {-2.0, 2.0}  # two of three +1 turned, or one of them and the -1
    assert len(seen) == 22
    assert found.latent_change == pytest.approx(2.8 - 2)
    assert found.flip_change == pytest.approx(sum(seen[2:]) / 20 - 2)
    assert model(torch.ones(1, 4)).item() == 2.0  # put back


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 1.0])
def test_exactly_that_share_of_the_kept_weights_is_flipped(share):
    binary = torch.tensor([1.0, -1, 0]).repeat(5, 7)
    flipped = _flipped(binary, share, torch.Generator().manual_seed(0))
    assert int((flipped != binary).sum()) == max(1, round(share * 70))
    assert torch.equal(flipped.abs(), binary.abs())


@pytest.mark.parametrize("method", sorted(eb.methods.list()))
def test_every_method_and_a_transposed_layer(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ConvTranspose2d(6, 4, 3, groups=2), nn.Flatten())
    eb.binarize_(model, method, skip=eb.nothing)
    x, before = torch.randn(8, 4, 5, 5), {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    found = [sensitivity(model, lambda: float(model(x).square().mean())) for _ in range(2)]
    assert found[0] == found[1]  # the draws are those of the seed
    assert [layer.name for layer in found[0]] == ["0", "2"]
    assert all(layer.flip_change != 0 for layer in found[0])
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_bad_input():
    model = nn.Sequential(nn.Linear(2, 2))
    for bad in ({"share": 0}, {"share": 1.5}, {"draws": 0}):
        with pytest.raises(InputError):
            sensitivity(model, lambda: 0.0, **bad)
    assert sensitivity(model, lambda: 0.0) == ()
