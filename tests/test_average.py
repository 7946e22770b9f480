"""train.ema and train.accumulate: what they compute, and that a run with them resumes bit for bit."""

import pytest
import torch

from equibit import convert, data, recipes, training
from equibit.errors import InputError
from equibit.training import checkpoint, loop
from equibit.training.device import open_accelerator
from equibit.training.schedules import Position
from equibit.training.steps import Training


def digits(**changes):
    overrides = {"train.epochs": 2, **{key.replace("__", "."): value for key, value in changes.items()}}
    return recipes.override(recipes.load("digits-digits_net-bi_half-1w32a"), overrides)


def under_way(recipe):
    dataset = data.load("digits")
    return Training(loop.complete(recipe, dataset), dataset, open_accelerator(recipe.train))


def steps(work, count):
    """Takes the first `count` steps of epoch 0."""
    order = torch.arange(len(work.train_split)).split(work.batch_size)[:count]
    work.model.train()
    for step, (images, labels) in enumerate(work.train_split.batches(order)):
        work.step(Position(0, step, work.steps), images, labels)
        yield


def test_the_average_is_that_of_the_formula():
    """a <- 0.9 a + 0.1 p after every step, from a = p after the first; of parameters and batch-norm statistics."""
    work, expected = under_way(digits(train__ema=0.9)), {}
    for _ in steps(work, 4):
        now = {k: v.double() for k, v in work.model.state_dict().items() if v.is_floating_point()}
        expected = {k: 0.9 * expected[k] + 0.1 * now[k] if expected else now[k].clone() for k in now}
    found = work.average.module.state_dict()
    assert len(expected) > 20
    for name, value in expected.items():  # float32 arithmetic against float64
        torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-7)
    latent = "conv2.parametrizations.weight.original"
    assert not torch.equal(found[latent], work.model.state_dict()[latent])


def test_the_average_is_what_is_scored_saved_and_loaded(tmp_path):
    summary = training.train(digits(train__ema=0.9), tmp_path)
    state = checkpoint.load_state(tmp_path / "state.safetensors")
    run = training.load_run(tmp_path)
    latent = "conv2.parametrizations.weight.original"
    assert torch.equal(run.model.state_dict()[latent], state.average[f"module.{latent}"])
    assert not torch.equal(run.model.state_dict()[latent], state.model[latent])
    pixels = run.recipe.data
    score = training.evaluate(run.model, data.load("digits").test, pixels.mean, pixels.std)
    assert score.accuracy == summary["final_accuracy"]
    best = training.load_run(tmp_path, "best")
    assert convert.binary_weights(best.model).keys() == convert.binary_weights(run.model).keys()


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("changes", [{"train__ema": 0.9}, {"train__accumulate": 4}], ids=["ema", "accumulate"])
def test_resumes_bit_for_bit(tmp_path, changes):
    def stop(row):
        raise StoppedError

    training.train(digits(**changes), tmp_path / "whole")
    with pytest.raises(StoppedError):
        training.train(digits(**changes), tmp_path / "cut", on_epoch=stop)
    training.train(digits(**changes), tmp_path / "cut", resume=True)
    one, other = (checkpoint.load_state(tmp_path / name / "state.safetensors") for name in ("whole", "cut"))
    for a, b in ((one.model, other.model), (one.average, other.average), (one.optimizer, other.optimizer)):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("parts", [2, 8])
def test_accumulation_takes_the_step_of_the_whole_batch(parts):
    """Without batch norm, the same gradient up to rounding: the same float32 terms, added in another order."""
    recipe = recipes.load("cifar10-conv2-bi_half-1w32a-short")
    small = {"model.in_shape": [1, 8, 8], "data.name": "digits", "data.augment": "none", "data.batch_size": 64}
    recipe = recipes.override(recipe, small)
    whole, cut = under_way(recipe), under_way(recipes.override(recipe, {"train.accumulate": parts}))
    for _ in zip(steps(whole, 3), steps(cut, 3), strict=True):
        for (name, a), b in zip(whole.model.named_parameters(), cut.model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__accumulate": 3}, r"a batch of 64 images cannot be divided evenly over 1 process.* multiple of 3"),
        ({"train__shard": True, "train__ema": 0.9}, r"train\.shard is true and train\.ema is set"),
        ({"train__shard": True, "train__channels_last": True}, r"train\.shard is true and train\.channels_last is set"),
        ({"train__shard": True}, r"train\.shard is true, but there is one process"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        training.train(digits(data__batch_size=64, **changes), tmp_path)


@pytest.mark.parametrize("decay", [0, 1, 1.5, "much"])
def test_a_decay_outside_zero_to_one(decay):
    with pytest.raises(InputError, match=r"train\.ema"):
        digits(train__ema=decay)
