"""A training killed with SIGKILL at any moment resumes to the same numbers, bit for bit.

A launcher process imports the library once and forks a child for every training, so that many real processes
can be killed in a short time. A child is killed from outside after a random time, or kills itself just before
its n-th file operation (write, sync, rename, sync of the folder), which covers every moment of every write.
"""

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from equibit import training
from equibit.training import checkpoint

KILLED = -9
METHODS = ("bi_half-1w32a", "float")
LAUNCHER = r"""
import dataclasses, os, signal, sys
from pathlib import Path
import torch._dynamo, torch.utils.tensorboard  # a training imports them; here once, not in every child
import equibit.files as files
from equibit import data, recipes, training
from equibit.training import checkpoint

digits = data.load("digits")

def die_at(operation):
    "Kills this process just before its n-th file operation; a write leaves half a file behind."
    done = 0
    def counted(function, leave_half=False):
        def wrapper(*arguments):
            nonlocal done
            done += 1
            if done == operation:
                if leave_half:
                    arguments[0].write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)
        return wrapper
    write_atomically = files.write_atomically
    def counted_write(path, write):
        write_atomically(path, counted(write, leave_half=True))
    files.write_atomically = checkpoint.write_atomically = counted_write
    files._sync = counted(files._sync)
    Path.replace = counted(Path.replace)

def run(out, method, epochs, images, operation):
    n = int(images)
    train = data.TensorSplit(digits.train_images[:n], digits.train_labels[:n])
    small = dataclasses.replace(digits, train=train)
    data.load = lambda name, **options: small
    recipe = recipes.load(f"digits-digits_net-{method}")
    recipe = recipes.override(recipe, {"train.epochs": epochs, "data.batch_size": 128})
    die_at(int(operation))
    training.train(recipe, out, resume=True, on_epoch=lambda row: print("epoch", row["epoch"], flush=True))

print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            run(*line.strip().split(" "))
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    print("pid", child, flush=True)
    print("exit", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Launcher:
    """Runs trainings as processes of their own, one at a time, and kills them."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        assert self.read() == ("ready",)

    def read(self):
        line = self.process.stdout.readline()
        assert line, "the launcher died"
        return tuple(line.split())

    def train(self, out, method, epochs, *, images=1437, operation=0, kill_after=None):
        """Starts or resumes a run; gives the exit status and the epochs that this process finished.

        `images`: the number of training images.
        `operation`: the file operation before which the process kills itself, from 1; 0 for none.
        `kill_after`: (epochs, seconds): killed from outside so long after it finished so many epochs.
        """
        self.process.stdin.write(f"{out} {method} {epochs} {images} {operation}\n")
        self.process.stdin.flush()
        pid, finished = None, []
        while True:
            what, number = self.read()
            if what == "exit":
                return int(number), finished
            if what == "pid":
                pid = int(number)
            else:
                finished.append(int(number))
            if pid is not None and kill_after is not None and len(finished) >= kill_after[0]:
                time.sleep(kill_after[1])
                with contextlib.suppress(ProcessLookupError):  # it ended by itself; the status will say so
                    os.kill(pid, signal.SIGKILL)
                kill_after = None

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def launcher():
    launcher = Launcher()
    yield launcher
    launcher.close()


def assert_same_run(uninterrupted, resumed):
    """Metrics, weights, optimiser and summary are equal, bit for bit; only times may differ."""
    first, second = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (uninterrupted, resumed)
    )
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert (uninterrupted / "layers.jsonl").read_bytes() == (resumed / "layers.jsonl").read_bytes()
    states = [checkpoint.load_state(run / "state.safetensors") for run in (uninterrupted, resumed)]
    assert states[0].flipped.keys() == states[1].flipped.keys()
    assert all(torch.equal(states[0].flipped[name], states[1].flipped[name]) for name in states[0].flipped)
    best = [checkpoint.load_weights(run / "best.safetensors") for run in (uninterrupted, resumed)]
    for one, other in [(states[0].model, states[1].model), (states[0].optimizer, states[1].optimizer), best]:
        assert one.keys() == other.keys()
        assert len(one) > 0
        for name in one:
            assert torch.equal(one[name], other[name]), name
    one, other = (json.loads((run / "summary.json").read_text()) for run in (uninterrupted, resumed))
    assert {**one, "seconds": 0, "commit": ""} == {**other, "seconds": 0, "commit": ""}
    assert not list(resumed.glob("*.tmp"))


def kill_at_random(launcher, reference, out, method, epochs, kills, seed):
    """Kills a run so many times at random moments, lets it finish, and compares it with the reference."""
    status, finished = launcher.train(reference, method, epochs)
    assert (status, finished) == (0, list(range(1, epochs + 1)))
    seconds = min(row["seconds"] for row in training.load_run(reference).metrics)
    chance, before = random.Random(seed), []
    for kill in range(kills):
        moment = (kill % 2, chance.uniform(0, 1.5) * seconds)
        status, finished = launcher.train(out, method, epochs, kill_after=moment)
        assert status == KILLED, f"kill {kill} at {moment} came too late, after epochs {finished}"
        assert finished == list(range(len(before) + 1, len(before) + 1 + len(finished))), "an epoch came twice"
        before += finished
    assert 0 < len(before) < epochs
    status, finished = launcher.train(out, method, epochs)
    assert (status, before + finished) == (0, list(range(1, epochs + 1)))
    assert_same_run(reference, out)


def test_killed_at_random_moments(launcher, tmp_path):
    kill_at_random(launcher, tmp_path / "reference", tmp_path / "killed", METHODS[0], epochs=6, kills=3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_killed_twenty_times(launcher, tmp_path, method):
    kill_at_random(launcher, tmp_path / "reference", tmp_path / "killed", method, epochs=50, kills=20, seed=2)


def test_killed_at_every_file_operation_in_turn(launcher, tmp_path):
    """The n-th process dies before its n-th file operation, until one gets through."""
    reference, out, arguments = tmp_path / "reference", tmp_path / "killed", (METHODS[0], 2)
    assert launcher.train(reference, *arguments, images=256)[0] == 0
    operation, status = 0, KILLED
    while status == KILLED:
        operation += 1
        status, _ = launcher.train(out, *arguments, images=256, operation=operation)
    assert status == 0
    assert operation > 20  # four operations for each of config, metrics, layers, best and state at least
    assert_same_run(reference, out)


def test_the_comparison_finds_the_smallest_difference(launcher, tmp_path):
    for name in ("one", "other"):
        assert launcher.train(tmp_path / name, "float", 1, images=256)[0] == 0
    assert_same_run(tmp_path / "one", tmp_path / "other")
    state = checkpoint.load_state(tmp_path / "other/state.safetensors")
    momentum = state.optimizer["head.weight/momentum_buffer"]
    momentum[0, 0] = torch.nextafter(momentum[0, 0], torch.tensor(math.inf))
    checkpoint.save_state(tmp_path / "other/state.safetensors", state)
    with pytest.raises(AssertionError, match=r"head\.weight"):
        assert_same_run(tmp_path / "one", tmp_path / "other")
