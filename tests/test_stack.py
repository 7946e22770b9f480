"""Batched replicas: each must be the training that it would be alone."""

import json
from dataclasses import replace

import filelock
import pytest
import torch
from safetensors.torch import load_file

from equibit import recipes, training
from equibit.errors import InputError, StateError
from equibit.training import loop
from equibit.training.device import open_accelerator
from equibit.training.schedules import Position
from equibit.training.stack import Stack, kind, require_stackable
from equibit.training.steps import Training
from equibit.training.together import train_together

METHODS = {
    "float": [None, None, None],
    "sign": [{"name": "sign"}] * 3,
    "sign of XNOR-Net": [
        {"name": "sign", "scale": "mean_abs", "ste": "clip", "detach_scale": False, "project": "xnor"}
    ] * 3,
    "bi_half, a ratio each": [{"name": "bi_half", "ratio": ratio} for ratio in (0.5, 0.3, 0.7)],
    "bi_half, pruned": [{"name": "bi_half", "density": 0.4, "rescale": True}] * 3,
    "mixed": [{"name": "sign"}, {"name": "bi_half"}, {"name": "bi_half", "ratio": 0.2}],
}  # fmt: skip
NETWORKS = ("digits_net", "conv2")  # with batch norm and without it
CASES = [*((methods, network) for methods in METHODS for network in NETWORKS), ("mixed", "resnet20")]  # it has skips
SEEDS = (3, 0, 3)
STEPS = 3


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def recipe(**changes):
    """Digits, 64 of them in batches of 16, shifted and mirrored, two epochs."""
    overrides = {
        "data.train_images": 64, "data.batch_size": 16, "data.augment": "crop_flip", "train.epochs": 2,
        "optimizer.lr": 0.05, "train.tensorboard": False,
    }  # fmt: skip
    overrides |= {key.replace("__", "."): value for key, value in changes.items()}
    return recipes.override(recipes.load("digits-digits_net-float"), overrides)


def three(methods, **changes):
    return [recipe(method=method, train__seed=seed, **changes) for method, seed in zip(methods, SEEDS, strict=True)]


def trainings(given, dtype=torch.float32):
    dataset = loop.load_data(given[0])
    opened = [Training(loop.complete(r, dataset), dataset, open_accelerator(r.train)) for r in given]
    for one in opened:
        one.model.to(dtype).train()
    return opened


def steps_alone(one):
    """Some steps of a training on the batches of its first epoch; the sums of each step."""
    found = []
    order = torch.randperm(64, generator=training.seeds.generator(one.recipe.train.seed, "order", 0))
    seed = training.seeds.stream_seed(one.recipe.train.seed, "augment", 0)
    batches = one.train_split.batches(order.split(16), augment=one.recipe.data.augment, seed=seed)
    for step, (images, labels) in zip(range(STEPS), batches, strict=False):
        found.append(one.step(Position(0, step, one.steps), images, labels)[:2])
    return torch.stack(found)


def steps_together(stacked):
    stacked.network.train()
    batches = zip(range(STEPS), stacked.batches(0), strict=False)
    found = [stacked.step(Position(0, step, 4), *batch) for step, batch in batches]
    return torch.stack(found, dim=1)  # (replicas, steps, 2)


def largest_difference(one, other):
    return max(float((a.double() - b.double()).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("methods", "network"), CASES)
def test_a_replica_is_the_training_alone(methods, network, monkeypatch):
    """In float64: same weights at first, same batches, same flips; then the same steps, batch norm and all."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # pixels and logits too
    given = three(METHODS[methods], model__name=network)
    alone, together = trainings(given, torch.float64), trainings(given, torch.float64)
    stacked = Stack(together)
    found = steps_together(stacked)
    for one, other, sums in zip(alone, together, found, strict=True):
        assert one.model.state_dict().keys() == other.model.state_dict().keys()
        expected = steps_alone(one)
        assert expected.shape == sums.shape == (STEPS, 2)
        # Rounding of 1e-16, which three steps of training amplify by orders of magnitude less than this.
        assert torch.allclose(sums, expected, rtol=1e-10, atol=0)
        assert largest_difference(one.model.state_dict().values(), other.model.state_dict().values()) < 1e-10
    first, other_seed, same_seed = (next(t.model.parameters()) for t in together)
    assert not torch.equal(first, other_seed)
    assert torch.equal(first, same_seed) == (METHODS[methods][0] == METHODS[methods][2])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_step_in_float32(network, device):
    """To 1e-5: rounding of 1e-7, summed in another order; no weight is near enough to the border to change its sign."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    given = three(METHODS["mixed"], model__name=network, train__device=device)
    alone, together = trainings(given), trainings(given)
    stacked = Stack(together)
    (batch,) = zip(range(1), stacked.batches(0), strict=False)
    sums = stacked.step(Position(0, 0, 4), *batch[1])
    for i, (one, other) in enumerate(zip(alone, together, strict=True)):
        images, labels = (part.unflatten(0, (3, -1))[i] for part in batch[1])
        assert torch.allclose(sums[i], one.step(Position(0, 0, 4), images, labels)[:2], rtol=1e-5)
        assert largest_difference(one.model.state_dict().values(), other.model.state_dict().values()) < 1e-5


def test_a_stack_is_made_of_its_trainings():
    """What a training holds is its part of the stack, so both see every change; a part can leave and go on alone."""
    together = trainings(three(METHODS["bi_half, a ratio each"]))
    stacked = Stack(together)
    for name, parameter in stacked.parameters.items():
        for i, one in enumerate(together):
            own = dict(one.model.named_parameters())[name]
            assert own.data_ptr() == parameter[i].data_ptr()
    stacked.train_epoch(0)
    (alone,) = trainings([together[1].recipe])
    alone.run_epoch(0)
    for one in (together[1], alone):
        one.run_epoch(1)
    a, b = (one.state([], []) for one in (together[1], alone))
    assert a.optimizer.keys() == b.optimizer.keys()
    # float32: rounding of 1e-7, and eight steps of training at a rate of 0.05
    assert largest_difference(a.optimizer.values(), b.optimizer.values()) < 1e-3
    assert largest_difference(a.model.values(), b.model.values()) < 1e-3


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_runs_trained_together_are_the_runs(optimizer, tmp_path):
    """The run folders: same files, same records to rounding; and an ordinary training goes on in them."""
    given = three(METHODS["mixed"], optimizer__name=optimizer, optimizer__lr=0.01, optimizer__weight_decay=1e-4)
    rows = []
    folders = [tmp_path / f"together{i}" for i in range(3)]
    summaries = train_together(given, folders, lambda run, row: rows.append((run, row["epoch"])))
    assert sorted(rows) == [(run, epoch) for run in range(3) for epoch in (1, 2)]
    for i, (one, folder, summary) in enumerate(zip(given, folders, summaries, strict=True)):
        alone = tmp_path / f"alone{i}"
        expected = training.train(one, alone)
        assert summary == json.loads((folder / "summary.json").read_text())
        assert summary.pop("replicas") == 3
        assert summary.keys() == expected.keys()
        assert {f.name for f in folder.iterdir()} == {f.name for f in alone.iterdir()}
        assert (folder / "config.yaml").read_text() == (alone / "config.yaml").read_text()
        states = [load_file(path / "state.safetensors") for path in (folder, alone)]
        assert states[0].keys() == states[1].keys()
        for record in ("metrics.jsonl", "layers.jsonl"):
            compare_records(folder / record, alone / record)
        assert training.train(one, folder, resume=True) == summary | {"replicas": 3}


def compare_records(found, expected):
    """Every number to rounding; a binary weight may differ here and there, because its latent was at the border."""
    rows, others = ([json.loads(line) for line in path.read_text().splitlines()] for path in (found, expected))
    assert len(rows) == len(others) == 2
    a, b = flat(rows), flat(others)
    assert a.keys() == b.keys()
    for path, value in a.items():
        assert value == (value if value is b[path] is None else pytest.approx(b[path], rel=2e-2, abs=2e-2)), path


def flat(value, path=()):
    """The numbers in nested rows by their path, without seconds."""
    if not isinstance(value, dict | list):
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for key, item in items if key != "seconds" for k, v in flat(item, (*path, key)).items()}


def test_runs_that_were_killed_catch_up(tmp_path):
    """Two of three have an epoch more on disk: the third does its own first; the end is that of whole trainings."""
    given = three(METHODS["bi_half, a ratio each"])
    whole = train_together(given, [tmp_path / f"whole{i}" for i in range(3)])
    folders = [tmp_path / f"cut{i}" for i in range(3)]

    def interrupt(run, row):
        if run == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_together(given, folders, interrupt)
    assert [(f / "state.safetensors").exists() for f in folders] == [True, True, False]
    rows = []
    summaries = train_together(given, folders, lambda run, row: rows.append((run, row["epoch"])))
    assert rows == [(2, 1), (0, 2), (1, 2), (2, 2)]
    for one, other in zip(summaries, whole, strict=True):
        assert one["final_accuracy"] == pytest.approx(other["final_accuracy"], abs=0.02)  # rounding, see above
        assert (one["epochs"], one["seed"]) == (other["epochs"], other["seed"])


def test_a_run_that_fails_stops_no_other(tmp_path, monkeypatch):
    """One folder holds another run, one is in use, one training diverges; the fourth is trained."""
    given = [recipe(method={"name": "sign"}, train__seed=seed) for seed in range(4)]
    folders = [tmp_path / str(i) for i in range(4)]
    training.train(recipe(train__epochs=1), folders[0])
    folders[1].mkdir()

    def diverge(self, epoch, loss):
        if self.recipe.train.seed == 2:
            raise StateError("the training diverged.")

    monkeypatch.setattr(Training, "_require_finite", diverge)
    with filelock.FileLock(folders[1] / ".lock"):
        other, used, diverged, fine = train_together(given, folders)
    assert isinstance(other, InputError)
    assert "another process is training" in str(used)
    assert str(diverged) == "the training diverged. No epoch was finished."
    assert fine["epochs"] == 2
    assert isinstance(train_together(given, folders)[0], InputError)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": {"name": "siman"}}, "method 'siman'"),
        ({"method": {"name": "sign", "density": 0.5}}, "density below 1"),
        ({"method": {"name": "sign"}, "activation": {"name": "siman"}}, "a sign activation"),
        ({"train__ema": 0.9}, "train.ema 0.9"),
        ({"train__accumulate": 2}, "train.accumulate 2"),
        ({"train__compile": True}, "train.compile True"),
        ({"train__shard": True}, "train.shard True"),
        ({"model__name": "vgg16", "model__in_shape": [1, 32, 32]}, "vgg16, which has dropout"),
    ],
)
def test_what_cannot_be_stacked(changes, message, tmp_path):
    with pytest.raises(InputError, match=f"{message}.* cannot be trained as batched replicas"):
        train_together([recipe(**changes)], [tmp_path / "run"])
    assert not (tmp_path / "run").exists()


def test_images_in_files_cannot_be_stacked():
    in_files = replace(recipe(), data=replace(recipe().data, name="imagefolder"))
    with pytest.raises(InputError, match="not all in memory"):
        require_stackable(in_files)


def test_recipes_that_differ_in_more(tmp_path):
    with pytest.raises(InputError, match="differ in more than seed and method"):
        train_together([recipe(), recipe(optimizer__lr=0.02)], [tmp_path / "a", tmp_path / "b"])
    assert kind(recipe(train__seed=1)) == kind(recipe(train__seed=2))
    assert kind(recipe(method={"name": "sign"})) == kind(recipe(method={"name": "bi_half", "ratio": 0.1}))
    assert kind(recipe(method={"name": "sign"})) != kind(recipe())
