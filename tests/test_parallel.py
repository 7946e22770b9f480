"""Several processes train what one process trains: DDP and FSDP2 over gloo, resume, accumulation, batch norm."""

import json
import os
import subprocess
import sys

import pytest
import torch

from equibit import data, recipes, training
from equibit.training import checkpoint

CHANGES = {"train.epochs": 2, "data.batch_size": 128, "schedule.warmup_epochs": 1}
SHALLOW = {  # no batch norm, so that a batch may be cut into parts
    "train.epochs": 1,
    "model.in_shape": [1, 8, 8],
    "data.name": "digits",
    "data.augment": "none",
    "data.batch_size": 64,
    "train.channels_last": False,
}
# Two processes add the same float32 terms in another order, an error of about 1e-7 a step; while no bit differs, the
# 22 steps here only add it up (measured: at most 4e-6). A weight that is not averaged over processes is off by 1e-2.
TOLERANCE = 1e-4

WORKER = r"""
import json, sys
from equibit import recipes, training
for out, name, changes in json.loads(sys.argv[1]):
    recipe = recipes.override(recipes.load(name), changes)
    training.train(recipe, out, resume=True)
"""


def launch(*runs):
    """Trains each (folder, recipe, changes) in two processes, all in one launch."""
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--no-python"]
    words += [sys.executable, "-W", "ignore", "-c", WORKER, json.dumps([(str(out), n, c) for out, n, c in runs])]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if line.startswith("[rank"))


def assert_close(one, other):
    first, second = (checkpoint.load_state(run / "state.safetensors") for run in (one, other))
    for a, b in ((first.model, second.model), (first.optimizer, second.optimizer), (first.average, second.average)):
        assert a.keys() == b.keys()
        for name in a:
            assert torch.allclose(a[name].double(), b[name].double(), atol=TOLERANCE, rtol=0), name
    assert len(first.history) == len(second.history) > 0
    for a, b in zip(first.history, second.history, strict=True):
        assert a["test_n"] == b["test_n"] == len(data.load("digits").test_labels)
        assert b["train_loss"] == pytest.approx(a["train_loss"], abs=1e-3)
        assert b["flip_rate"] == pytest.approx(a["flip_rate"], abs=1e-4)


class StoppedError(Exception):
    pass


def stop(row):
    raise StoppedError


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of one process and, in one launch, the same of two."""
    out = tmp_path_factory.mktemp("parallel")
    network, shallow = "digits-digits_net-bi_half-1w32a", "cifar10-conv2-bi_half-1w32a-short"
    projected = "digits-digits_net-siman-1w32a"  # its projection looks at whole layers
    for name, recipe, changes in (
        ("one", network, CHANGES),
        ("one-average", network, CHANGES | {"train.ema": 0.9}),
        ("one-shallow", shallow, SHALLOW),
    ):
        training.train(recipes.override(recipes.load(recipe), changes), out / name)
    for name in ("resumed-ddp", "resumed-fsdp"):
        with pytest.raises(StoppedError):
            training.train(recipes.override(recipes.load(network), CHANGES), out / name, on_epoch=stop)
    launch(
        (out / "ddp", network, CHANGES),
        (out / "fsdp", network, CHANGES | {"train.shard": True}),
        (out / "resumed-ddp", network, CHANGES),
        (out / "resumed-fsdp", network, CHANGES | {"train.shard": True}),
        (out / "ddp-projected", projected, CHANGES),
        (out / "fsdp-projected", projected, CHANGES | {"train.shard": True}),
        (out / "ddp-average", network, CHANGES | {"train.ema": 0.9}),
        (out / "ddp-accumulated", shallow, SHALLOW | {"train.accumulate": 2}),
        (out / "fsdp-accumulated", shallow, SHALLOW | {"train.accumulate": 2, "train.shard": True}),
    )
    return out


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("one", "ddp"),
        ("one", "fsdp"),
        ("one", "resumed-ddp"),
        ("one", "resumed-fsdp"),
        ("one-average", "ddp-average"),
        ("one-shallow", "ddp-accumulated"),
        ("one-shallow", "fsdp-accumulated"),
    ],
)
def test_two_processes_equal_one(runs, one, two):
    assert_close(runs / one, runs / two)


def test_a_projection_looks_at_whole_layers_where_they_are_sharded(runs):
    assert_close(runs / "ddp-projected", runs / "fsdp-projected")  # one process adds in another order: bits differ


def test_a_run_of_two_processes_is_read_by_one(runs):
    for name in ("ddp", "fsdp", "ddp-average"):
        run = training.load_run(runs / name)
        score = training.evaluate(run.model, data.load("digits").test, run.recipe.data.mean, run.recipe.data.std)
        assert score.accuracy == run.summary["final_accuracy"]
