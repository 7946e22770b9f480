"""Figure 6: the enumeration of all 4096 small networks is exact."""

import csv
import json
import os
import subprocess
import sys

import numpy as np

from equibit.figures import catalog, figure6
from equibit.figures.figure6 import GRID, class_maps, enumerate_networks
from equibit.figures.publish import publish

# Negatives, combinations, constant, unique: the authors' script, run for each number of negative weights.
TABLE = [
    (0, 1, 1, 0), (1, 12, 12, 0), (2, 66, 60, 2), (3, 220, 160, 14), (4, 495, 306, 35), (5, 792, 453, 55),
    (6, 924, 492, 66), (7, 792, 405, 59), (8, 495, 279, 37), (9, 220, 154, 15), (10, 66, 57, 3), (11, 12, 12, 0),
    (12, 1, 1, 0),
]  # fmt: skip
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from equibit.cli import main
sys.exit(main(["figure", "6", "--out", sys.argv[1], "--json"]))
"""


def test_the_counts_of_every_number_of_negatives():
    counts = enumerate_networks()
    assert [tuple(count.row().values()) for count in counts] == TABLE
    assert sum(count.combinations for count in counts) == 2**figure6.WEIGHTS
    every = {boundary for count in counts for boundary in count.boundaries}
    assert len(every) == 76
    assert set(counts[6].boundaries) < every


def test_classes_are_those_of_the_network_written_out():
    """Some networks, in the plainest way: weights, biases, sigmoids, rounding, as the definition says."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    maps, signs = class_maps(), np.random.default_rng(0).choice([-1, 1], size=(20, 12))
    first, second = np.meshgrid(GRID, GRID)
    constant = 0
    for weights in signs:
        hidden, biases, output = weights[:6].reshape(2, 3), weights[6:9], weights[9:]
        total = 0.0
        units = [2 * figure6._BITS.index((hidden[0, j], hidden[1, j], biases[j])) + (output[j] < 0) for j in range(3)]
        for j in np.argsort(units, kind="stable"):
            total = total + output[j] * sigmoid(hidden[0, j] * first + hidden[1, j] * second + biases[j])
        classes = np.round(sigmoid(total)).astype(bool).ravel()
        expected = None if classes.all() or not classes.any() else np.packbits(classes ^ classes[0]).tobytes()
        assert maps[tuple(sorted(units))] == expected
        constant += expected is None
    assert 0 < constant < len(signs)


def test_the_counts_do_not_hang_on_the_rounding_of_the_grid(monkeypatch):
    assert (len(GRID), GRID[0]) == (250, -5.0)
    exact = np.round(GRID, 2)
    assert np.abs(GRID - exact).max() < 1e-13
    assert GRID[125] != exact[125] == 0  # boundaries pass through the origin
    monkeypatch.setattr(figure6, "GRID", exact)
    assert [tuple(count.row().values()) for count in enumerate_networks()] == TABLE


def test_files_without_torch_in_seconds(tmp_path):
    before = os.times()
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 10  # seconds of a core; it takes 3
    data = json.loads(done.stdout)
    assert data == json.loads((tmp_path / "6.json").read_text())
    counts = {key: data[key] for key in ("full_combinations", "full_unique", "half_combinations", "half_unique")}
    assert counts == dict(zip(counts, (4096, 76, 924, 66), strict=True))
    with (tmp_path / "6.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["negatives", "combinations", "constant", "unique"]
    assert [tuple(map(int, row)) for row in rows] == TABLE


def test_redrawn_it_is_the_same(tmp_path):
    for folder in "ab":
        publish(catalog.get("6"), (), [], tmp_path / folder)
    for suffix in ("png", "svg", "csv", "json"):
        first, second = ((tmp_path / folder / f"6.{suffix}").read_bytes() for folder in "ab")
        assert first == second
        assert first
