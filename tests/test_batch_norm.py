"""recalibrate_batchnorm against the statistics computed directly."""

import copy

import pytest
import torch
from torch import nn

import equibit as eb
from equibit.errors import InputError
from equibit.methods import Method


class Relaxed(Method):
    """Trains with the latent itself, hard in eval mode, as group_transform does."""

    key = "relaxed"

    def assign(self, latent):
        return torch.where(latent >= 0, 1.0, -1.0)

    def factors(self, latent, binary):
        return latent.new_full((len(latent),), 0.5), None

    def forward(self, latent):
        return latent if self.training else super().forward(latent)


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, momentum=0.3), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(5)
    )
    model(X[:2])
    model[1].running_mean.normal_()
    eb.binarize_(model, Relaxed(), skip=eb.nothing)
    return model


X = torch.randn(23, 3, 6, 5, generator=torch.Generator().manual_seed(1))


def statistics(model, batches):
    """Mean over the batches of the mean and of the unbiased variance, per channel, in double."""
    weight = 0.5 * eb.binary_weights(model)["0.weight"]
    outputs = [nn.functional.conv2d(x.double(), weight.double(), model[0].bias.double()) for x in batches]
    flat = [y.detach().movedim(1, 0).flatten(1) for y in outputs]
    return (torch.stack([f.mean(1) for f in flat]).mean(0), torch.stack([f.var(1) for f in flat]).mean(0))


@pytest.mark.parametrize("sizes", [[23], [8, 8, 7], [1, 22]])
def test_statistics_are_those_of_the_hard_weights(sizes):
    model, batches = network(), X.split(sizes)
    for batch in batches:  # statistics of the relaxed weights
        model(batch)
    eb.recalibrate_batchnorm(model, batches)
    mean, var = statistics(model, batches)
    # float32 sums of some hundred terms of size about 1: a few eps.
    torch.testing.assert_close(model[1].running_mean.double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model[1].running_var.double(), var, rtol=1e-5, atol=1e-5)
    assert model[1].num_batches_tracked == len(sizes)


def test_nothing_else_changes_and_it_is_deterministic():
    model = network().train()
    model[0].eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    state = torch.get_rng_state()
    eb.recalibrate_batchnorm(model, X.split(8))
    first = copy.deepcopy(model.state_dict())
    assert torch.equal(state, torch.get_rng_state())  # no dropout
    assert [m.training for m in model.modules()] == modes
    assert model[1].momentum == 0.3
    changed = {name for name, value in before.items() if not torch.equal(value, first[name])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert all(p.grad is None for p in model.parameters())
    eb.recalibrate_batchnorm(model, X.split(8))
    assert all(torch.equal(value, first[name]) for name, value in model.state_dict().items())


def test_what_a_data_loader_gives_and_a_packed_model():
    dataset = torch.utils.data.TensorDataset(X, torch.arange(len(X)))
    one, two, packed = network(), network(), eb.pack(network())
    eb.recalibrate_batchnorm(one, X.split(10))
    eb.recalibrate_batchnorm(two, torch.utils.data.DataLoader(dataset, batch_size=10))
    eb.recalibrate_batchnorm(packed, ((x, "label") for x in X.split(10)))
    for model in (two, packed):
        assert torch.equal(model[1].running_var, one[1].running_var)
        assert torch.equal(model[1].running_mean, one[1].running_mean)


class WithAuxiliary(nn.Module):
    """A head that only training runs."""

    def __init__(self):
        super().__init__()
        self.norm, self.auxiliary, self.free = nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.BatchNorm1d(4, momentum=None)
        self.own = nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, x):
        y = self.own(self.free(self.norm(x)))
        return (y, self.auxiliary(x)) if self.training else y


def test_a_batch_norm_that_is_not_reached_keeps_its_statistics():
    model, x = WithAuxiliary(), torch.randn(9, 4)
    model.auxiliary.running_mean.fill_(3.0)
    model.auxiliary.num_batches_tracked.fill_(7)
    eb.recalibrate_batchnorm(model, [x])
    assert (model.auxiliary.running_mean == 3).all()
    assert model.auxiliary.num_batches_tracked == 7
    assert model.free.momentum is None
    torch.testing.assert_close(model.norm.running_mean, x.mean(0))


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], InputError, "no batch"),
        (iter(()), InputError, "no batch"),
        ([X, {"x": X}], InputError, "a batch is a dict"),
        ([X, ()], InputError, "a batch is a tuple"),
        ([X, ("label", X)], InputError, "begin with"),
        ([X, X[:, :2]], RuntimeError, "channels"),
    ],
)
def test_an_error_leaves_the_model_as_it_was(batches, error, message):
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        eb.recalibrate_batchnorm(model, batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[1].momentum == 0.3
    assert all(m.training for m in model.modules())


def test_a_model_without_running_statistics():
    for model in (nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)):
        with pytest.raises(InputError, match="no batch norm with running statistics"):
            eb.recalibrate_batchnorm(model, [torch.randn(3, 2)])
