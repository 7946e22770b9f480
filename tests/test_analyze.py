"""equibit.analysis.layer_bits and the pictures of equibit analyze."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import equibit as eb
from equibit import recipes, training
from equibit.analysis import layer_bits
from equibit.cli import main
from equibit.errors import InputError
from equibit.figures import analyze


def test_bits_of_a_layer_by_hand():
    layer = nn.Linear(4, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, -2, -3, -4], [5, 6, 7, -8]])
    model = nn.Sequential(layer)
    eb.binarize_(model, "sign", skip=eb.nothing)
    (found,) = layer_bits(model)
    assert (found.name, found.kind, found.shape, found.method, found.weights) == ("0", "Linear", (2, 4), "sign", 8)
    assert (found.ratio_min, found.ratio_mean, found.ratio_max) == (0.25, 0.5, 0.75)
    entropy = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    assert found.entropy_mean == pytest.approx(entropy, abs=1e-12)
    assert found.entropy_min == pytest.approx(entropy, abs=1e-12)
    assert found.kept == 1.0
    values = np.array([1, -2, -3, -4, 5, 6, 7, -8])
    assert found.latent_mean == pytest.approx(values.mean())
    assert found.latent_std == pytest.approx(values.std())


def test_pruned_weights_and_unequal_filters():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(8, 3))
    eb.binarize_(model, eb.BiHalf(ratio=0.25, density=0.5), skip=eb.nothing)
    conv, linear = layer_bits(model)
    assert (conv.shape, conv.kind) == ((4, 3, 3, 3), "Conv2d")
    # Of 27 weights: floor(0.5 * 0.75 * 27) = 10 are -1, ceil(0.5 * 0.25 * 27) = 4 are +1. Of 8: 3 and 1.
    assert conv.kept == pytest.approx(14 / 27)
    assert conv.ratio_min == conv.ratio_max == pytest.approx(4 / 14)
    assert linear.kept == 0.5
    assert linear.ratio_mean == 0.25


def test_a_float_model_has_no_binary_layer_and_nan_names_the_layer():
    assert layer_bits(nn.Sequential(nn.Linear(3, 3))) == ()
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    eb.binarize_(model, "sign", skip=eb.nothing)
    model[1].parametrizations.weight.original.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="'1'"):
        layer_bits(model)


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module", params=["digits-digits_net-float", "digits-digits_net-sign-1w32a"])
def unfinished(request, tmp_path_factory):
    """A run that was killed after the second of five epochs."""
    recipe = recipes.load(request.param)
    recipe = replace(recipe, train=replace(recipe.train, epochs=5))
    folder = tmp_path_factory.mktemp("runs") / "run"

    def stop(row):
        if row["epoch"] == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        training.train(recipe, folder, on_epoch=stop)
    return folder


def test_analyze_an_unfinished_run(unfinished, tmp_path, capsys):
    is_float = "method: null" in (unfinished / "config.yaml").read_text()
    assert main(["analyze", str(unfinished), "--json", "--plot", str(tmp_path / "plots")]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in (unfinished / "metrics.jsonl").read_text().splitlines()]
    assert found["epochs"] == rows
    assert found["records"] == [json.loads(line) for line in (unfinished / "layers.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert [layer["name"] for layer in found["layers"]] == ([] if is_float else ["conv2", "conv3", "fc1"])
    if not is_float:
        filters = [layer["shape"][0] for layer in found["layers"]]
        mean = np.average([layer["ratio_mean"] for layer in found["layers"]], weights=filters)
        assert mean == pytest.approx(rows[-1]["bit_ratio"])  # the same quantity, from the record
    assert main(["analyze", str(unfinished)]) == 0
    assert ("no binary layer" in capsys.readouterr().out) == is_float
    check_pictures(tmp_path / "plots", found)


def check_pictures(folder, found):
    with Image.open(folder / "analyze.png") as picture:
        assert picture.width > 700
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    assert (folder / "analyze.svg").read_text().startswith("<?xml")
    with (folder / "analyze.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    assert [float(row["test_accuracy"]) for row in epochs] == [row["test_accuracy"] for row in found["epochs"]]
    with (folder / "analyze.layers.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [layer["name"] for layer in found["layers"]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """What `equibit analyze --json` prints of a network with more layers than a legend names."""
    names = [f"layer{i}.conv" for i in range(10)]
    model = nn.ModuleDict({name.replace(".", "_"): nn.Linear(40, 6) for name in names})
    eb.binarize_(model, "sign", skip=eb.nothing)
    layers = [{**layer.to_dict(), "name": n} for layer, n in zip(layer_bits(model), names, strict=True)]
    curves = {"flip_rate": 0.1, "never_flipped": None, "bit_entropy": 1.0, "activation_entropy": None, "angle": 40.0}
    records = [{"epoch": e, "layers": {n: {**curves, "p_star": 0.4 + e / 9} for n in names}} for e in (1, 2)]
    row = {"train_accuracy": 0.5, "test_accuracy": 0.4, "flip_rate": 0.0, "bit_entropy": 1.0}
    return {"layers": layers, "epochs": [{"epoch": 1, **row}, {"epoch": 2, **row}], "records": records}


def test_pictures_are_the_same_twice(recorded, tmp_path):
    first, _ = (analyze.draw(recorded, tmp_path / name, "title") for name in "ab")
    assert [path.name for path in first] == ["analyze.png", "analyze.training.png", "analyze.latents.png"]
    assert len(list((tmp_path / "a").iterdir())) == 10  # three each, and analyze.layers.csv
    for one in (tmp_path / "a").iterdir():
        assert one.read_bytes() == (tmp_path / "b" / one.name).read_bytes()


def test_the_numbers_beside_the_latents_are_densities(recorded, tmp_path):
    analyze.draw(recorded, tmp_path, "title")
    with (tmp_path / "analyze.latents.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["layer"] == "layer3.conv"]
    assert len(rows) == 64
    widths = [float(row["to"]) - float(row["from"]) for row in rows]
    for column in ("density", "laplace", "gauss"):
        total = sum(float(row[column]) * width for row, width in zip(rows, widths, strict=True))
        assert total == pytest.approx(1, abs=0.02)  # but for what lies beyond four standard deviations


def test_an_old_run_without_records_is_drawn(recorded, tmp_path):
    old = {**recorded, "records": []}
    assert [path.name for path in analyze.draw(old, tmp_path, "title")] == ["analyze.png", "analyze.latents.png"]


def test_latents_that_are_all_equal(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2))
    nn.init.zeros_(model[0].weight)
    eb.binarize_(model, "sign", skip=eb.nothing)
    (layer,) = layer_bits(model)
    assert (layer.laplace_fit, layer.gauss_fit, layer.quantization_error) == (None, None, None)
    json.dumps(layer.to_dict(), allow_nan=False)
    row = {"epoch": 1, "train_accuracy": 0.5, "test_accuracy": 0.4, "flip_rate": 0.0, "bit_entropy": 1.0}
    analyze.draw({"layers": [layer.to_dict()], "epochs": [row], "records": []}, tmp_path, "title")


def test_twin_and_sensitivity(unfinished, tmp_path, capsys):
    is_float = "method: null" in (unfinished / "config.yaml").read_text()
    twin = tmp_path / "twin"
    training.train(recipes.override(recipes.load("digits-digits_net-float"), {"train.epochs": 1}), twin)
    words = ["analyze", str(unfinished), "--twin", str(twin), "--sensitivity", "--images", "100"]
    assert main([*words, "--json", "--plot", str(tmp_path / "plots")]) == 0
    found = json.loads(capsys.readouterr().out)["layers"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    for layer in found:
        assert 0 < layer["sign_agreement"] < 1
        assert layer["flip_change"] > 0
        assert f"{layer['flip_change']:+.4f}" in shown
        assert f"{layer['latent_change']:+.4f}" in shown
    assert main(["analyze", str(unfinished), "--twin", str(unfinished)]) == (0 if is_float else 2)
    assert main(["analyze", str(unfinished), "--sensitivity", "--images", "0"]) == 2
