"""What is written stays whole when the disk is full, the folder cannot be written, or the program is interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from equibit import recipes, training
from equibit.training import checkpoint

RECIPE = "digits-digits_net-sign-1w32a"
# argv: folder, epochs, bytes a file may have (0: no limit), user to become (0: stay)
TRAIN = r"""
import os, resource, sys
from equibit import recipes, training
from equibit.errors import FileError
out, epochs, limit, user = sys.argv[1], *map(int, sys.argv[2:])
def after(row):
    print("epoch", row["epoch"], flush=True)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
recipe = recipes.override(recipes.load("digits-digits_net-sign-1w32a"), {"train.epochs": epochs})
if user:
    os.setuid(user)
try:
    training.train(recipe, out, resume=True, on_epoch=after)
except FileError as error:
    print("FileError:", error, flush=True)
"""
NOBODY = 65534


def train(out, *, epochs=2, limit=0, user=0):
    words = [sys.executable, "-c", TRAIN, str(out), str(epochs), str(limit), str(user)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    out = tmp_path_factory.mktemp("reference")
    assert train(out) == ["epoch 1", "epoch 2"]
    return out


def resume(out):
    """The run goes on in this process, to the numbers of the uninterrupted one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    training.train(recipes.override(recipes.load(RECIPE), {"train.epochs": 2}), out, resume=True)
    torch.set_num_threads(threads)
    return rows(out)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def rows(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


@pytest.mark.parametrize("limit", [64, 40_000], ids=["nothing more fits", "half a state fits"])
def test_a_full_disk(reference, tmp_path, limit):
    """After epoch 1 the kernel lets no file grow beyond `limit` bytes, as a full disk would."""
    first, message = train(tmp_path, limit=limit)
    assert first == "epoch 1"
    assert message.startswith(f"FileError: cannot write {tmp_path}")
    assert "too large" in message
    assert message.endswith(f"The state after epoch 1 is kept in {tmp_path}/state.safetensors. "
                            "Make room, then continue with --resume.")  # fmt: skip
    assert checkpoint.load_state(tmp_path / "state.safetensors").epoch == 1
    assert not list(tmp_path.glob("*.tmp"))
    assert resume(tmp_path) == rows(reference)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user; permissions do not bind root")
@pytest.mark.parametrize("present", [True, False], ids=["a run", "an empty folder"])
def test_a_folder_that_cannot_be_written(reference, tmp_path, present):
    out = tmp_path / "run"
    out.mkdir()
    if present:
        for name, content in files(reference).items():
            (out / name).write_bytes(content)
    for folder in (out, *tmp_path.parents[:2], tmp_path):
        folder.chmod(0o755)  # readable for everybody, writable for its owner
    before = files(out)
    (message,) = train(out, epochs=2, user=NOBODY)
    assert message == f"FileError: cannot write to the run folder {out}: Permission denied. Choose another --out."
    assert files(out) == before


class StoppedError(Exception):
    pass


def stop(row):
    raise StoppedError


def test_ctrl_c_then_resume(tmp_path):
    """SIGINT as a terminal sends it, in the middle of a training: one line, and the next call goes on."""
    words = [sys.executable, "-m", "equibit.cli", "train", RECIPE, "--train.epochs=60", "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment)
    while not (tmp_path / "state.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "--resume" in said
    before = rows(tmp_path)
    assert 0 < len(before) < 60
    recipe = recipes.override(recipes.load(RECIPE), {"train.epochs": 60})
    with pytest.raises(StoppedError):
        training.train(recipe, tmp_path, resume=True, on_epoch=stop)
    assert rows(tmp_path)[: len(before)] == before
    assert len(rows(tmp_path)) == len(before) + 1


def test_a_failed_write_leaves_the_old_file(reference, tmp_path, monkeypatch):
    for name, content in files(reference).items():
        (tmp_path / name).write_bytes(content)
    before = files(tmp_path)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint.save_state(tmp_path / "state.safetensors", checkpoint.load_state(tmp_path / "state.safetensors"))
    assert files(tmp_path) == before
