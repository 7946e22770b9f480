"""A sweep on a local Ray cluster of two workers."""

import importlib.util
import json
import subprocess
import sys

import pytest
import torch

from equibit import training
from equibit.sweep import jobs

RECIPE = "digits-digits_net-bi_half-1w32a"
SMALL = {"train.epochs": 2, "data.train_images": 64, "data.batch_size": 32, "train.tensorboard": False}
# Ray warns of its own making, and its workers must not outlive the test: so a process of its own.
SWEEP = """
import json, pathlib, sys
import ray
from ray.cluster_utils import Cluster as Nodes
from equibit import sweep
from equibit.integrations import ray_tune

if __name__ == "__main__":
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    ray_tune.join(nodes.address)
    assert len(ray.nodes()) == 2
    planned = sweep.jobs([tuple(run) for run in json.loads(sys.argv[1])], pathlib.Path(sys.argv[2]))
    (planned[0].out / ".lock").mkdir(parents=True)  # so this training fails
    seen = []
    trainings = sweep.Sweep(planned, start=ray_tune.Cluster)
    trainings.run(lambda job, state, progress: seen.append((job and job.out.name, state, progress.runs)))
    print(json.dumps({"seen": seen, "outcomes": [outcome.to_dict() for outcome in trainings.outcomes()]}))
    ray.shutdown()
    nodes.shutdown()
"""


@pytest.fixture
def _one_thread():
    """As each worker has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'equibit[ray]'")
def test_a_sweep_on_two_workers(tmp_path):
    """Every run is the one that trains here, bit for bit; one that fails stops no other."""
    runs = [(RECIPE, {**SMALL, "method.ratio": ratio}, 0) for ratio in (0.4, 0.5, 0.6)]
    planned = jobs(runs, tmp_path)
    first = run_sweep(runs, tmp_path)
    assert [outcome["state"] for outcome in first["outcomes"]] == ["failed", "finished", "finished"]
    assert ".lock" in planned[0].log.read_text()
    for job in planned[1:]:
        alone = tmp_path / "alone" / job.out.name
        training.train(job.recipe, alone)
        assert metrics(job.out) == metrics(alone)
    states = {name: [state for n, state, _ in first["seen"] if n == name] for name in (job.out.name for job in planned)}
    assert list(states.values()) == [["training", "failed"], ["training", "finished"], ["training", "finished"]]
    assert first["seen"][-1][2] == 3


def run_sweep(runs, out):
    words = [sys.executable, "-c", SWEEP, json.dumps(runs), str(out)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # and nothing else, though Ray likes to print


def metrics(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
