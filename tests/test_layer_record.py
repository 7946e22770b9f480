"""layers.jsonl and the TensorBoard log: what a run records of its binary layers, epoch by epoch."""

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import equibit as eb
from equibit import analysis, recipes, training
from equibit.training import checkpoint
from equibit.training.steps import Training

LAYERS = ["conv2", "conv3", "fc1"]
KEYS = [
    "weights", "filters", "bit_ratio", "bit_entropy", "layer_entropy", "dead_filters", "kept", "latent_mean",
    "latent_std", "latent_median", "latent_histogram", "laplace_fit", "gauss_fit", "p_star", "angle",
    "quantization_error", "residual", "flip_rate", "step_flip_rate", "never_flipped", "activation_entropy",
    "constant_inputs",
]  # fmt: skip


def digits(method="sign-1w32a", **changes):
    given = {"train.epochs": 2, "data.train_images": 512, "data.batch_size": 128, "train.tensorboard": False}
    given |= {key.replace("__", "."): value for key, value in changes.items()}
    return recipes.override(recipes.load(f"digits-digits_net-{method}"), given)


def lines(folder):
    return [json.loads(line) for line in (folder / "layers.jsonl").read_text().splitlines()]


class Snapshots(list):
    """The binary weights that a training looks at: at the start, before the last step and after every epoch."""

    def __init__(self, monkeypatch):
        original = Training._binary_weights
        monkeypatch.setattr(Training, "_binary_weights", lambda self_: self.append(original(self_)) or self[-1])


@pytest.mark.parametrize("method", ["sign-1w32a", "bi_half-1w32a", "group_transform-1w32a"])
def test_the_lines_say_what_the_network_is(tmp_path, monkeypatch, method):
    seen, rows = Snapshots(monkeypatch), []
    training.train(digits(method), tmp_path, on_epoch=rows.append)
    found = lines(tmp_path)
    assert [line["epoch"] for line in found] == [1, 2]
    assert [list(line["layers"]) for line in found] == [LAYERS] * 2
    assert all(list(layer) == KEYS for line in found for layer in line["layers"].values())
    run = training.load_run(tmp_path)
    assert run.layers == found
    for layer in analysis.layer_bits(run.model):
        line = found[-1]["layers"][layer.name]
        assert line["bit_entropy"] == pytest.approx(layer.entropy_mean, rel=1e-5)  # six digits are written
        assert line["p_star"] == pytest.approx(layer.p_star, rel=1e-5)
        assert line["latent_histogram"] == list(layer.latent_histogram)
        check_flips(f"{layer.name}.weight", found, seen, layer.name)
    for line, row in zip(found, rows, strict=True):
        layers = line["layers"].values()
        filters = sum(layer["filters"] for layer in layers)
        assert sum(e["bit_ratio"] * e["filters"] for e in layers) / filters == pytest.approx(row["bit_ratio"], rel=1e-5)
        weights = sum(layer["weights"] for layer in layers)
        flips = sum(e["flip_rate"] * e["weights"] for e in layers) / weights
        assert flips == pytest.approx(row["flip_rate"], rel=1e-4)


def check_flips(weight, found, seen, layer):
    start, *later = [snapshot[weight] for snapshot in seen]
    steps, ends = later[::2], later[1::2]
    for n, line in enumerate(found):
        entry = line["layers"][layer]
        before = ends[n - 1] if n else start
        assert entry["flip_rate"] == pytest.approx(analysis.flip_rate(before, ends[n]), rel=1e-5)
        assert entry["step_flip_rate"] == pytest.approx(analysis.flip_rate(steps[n], ends[n]), rel=1e-5)
        assert entry["never_flipped"] == pytest.approx(analysis.never_flipped([start, *ends[: n + 1]]), rel=1e-5)


def test_three_levels(tmp_path, monkeypatch):
    seen = Snapshots(monkeypatch)
    training.train(digits("bi_half-1w32a", method__density=0.5), tmp_path)
    assert all((snapshot["fc1.weight"] == 0).any() for snapshot in seen)
    check_flips("fc1.weight", lines(tmp_path), seen, "fc1")
    assert {line["layers"]["fc1"]["kept"] for line in lines(tmp_path)} == {0.5}


@pytest.mark.parametrize("activation", [None, {"name": "siman"}])
def test_activations_are_looked_at_on_the_first_test_images(tmp_path, activation):
    training.train(digits(activation=activation, train__epochs=1), tmp_path)
    run = training.load_run(tmp_path)
    digits_set = eb.data.load("digits")
    images = eb.data.normalize(digits_set.test_images[:256], digits_set.mean, digits_set.std)
    expected = analysis.input_signs(run.model, [images])
    for name, entry in run.layers[0]["layers"].items():
        # Batches of another size round differently, which can turn the sign of a value next to 0.
        assert entry["activation_entropy"] == pytest.approx(expected[name].entropy, abs=1e-4)
        assert 0 < entry["activation_entropy"] < 1
        assert entry["constant_inputs"] == expected[name].constant


def test_the_residual_falls_with_the_continuation(tmp_path):
    training.train(digits("group_transform-1w32a", train__epochs=3), tmp_path)
    residuals = [[line["layers"][name]["residual"] for line in lines(tmp_path)] for name in LAYERS]
    assert all(0 < last < middle < first < 1 for first, middle, last in residuals)


@pytest.mark.parametrize("form", ["1a", "1b", "2", "3"])
def test_the_residual_is_the_relative_distance_to_the_hard_weights(form):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(9, 5))
    eb.binarize_(model, eb.GroupTransform(form), skip=eb.nothing)
    eb.advance(model, 0.5)
    relaxed = model.train()[0].weight.detach()
    hard = model.eval()[0].weight.detach()
    (found,) = analysis.layer_bits(model)
    assert found.residual == pytest.approx(float((relaxed - hard).norm() / hard.norm()), rel=1e-6)
    assert not model[0].parametrizations.weight[0].method.training


def test_a_float_run_has_lines_without_layers(tmp_path):
    training.train(digits("float"), tmp_path)
    assert lines(tmp_path) == [{"epoch": 1, "layers": {}}, {"epoch": 2, "layers": {}}]


class StoppedError(Exception):
    pass


def stop(row):
    raise StoppedError


def stopped_after_one_epoch(recipe, folder):
    with pytest.raises(StoppedError):
        training.train(recipe, folder, on_epoch=stop)


def test_a_resumed_run_has_the_same_file(tmp_path):
    recipe = digits()
    training.train(recipe, tmp_path / "whole")
    stopped_after_one_epoch(recipe, tmp_path / "cut")
    (tmp_path / "cut/layers.jsonl").write_text("half a li")  # the state says what belongs into it
    training.train(recipe, tmp_path / "cut", resume=True)
    assert (tmp_path / "cut/layers.jsonl").read_bytes() == (tmp_path / "whole/layers.jsonl").read_bytes()


def test_a_run_from_before_it_was_recorded_goes_on(tmp_path):
    recipe = digits(train__epochs=3)
    stopped_after_one_epoch(recipe, tmp_path)
    make_old(tmp_path)
    assert training.load_run(tmp_path).layers == []
    training.train(recipe, tmp_path, resume=True)
    found = lines(tmp_path)
    assert [line["epoch"] for line in found] == [2, 3]
    assert {entry["never_flipped"] for line in found for entry in line["layers"].values()} == {None}
    assert all(entry["flip_rate"] > 0 for line in found for entry in line["layers"].values())


def make_old(folder):
    """Takes away what earlier versions did not write."""
    state = checkpoint.load_state(folder / "state.safetensors")
    checkpoint.save_state(
        folder / "state.safetensors", checkpoint.State(state.history, state.model, state.optimizer, state.average)
    )
    (folder / "layers.jsonl").unlink()
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(", tensorboard: false", "").replace("tensorboard: false", ""))
    assert "tensorboard" not in config.read_text()


# --- TensorBoard ----------------------------------------------------------------------------------


def events(folder):
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"histograms": 0})
    found.Reload()
    return found


def test_the_event_log_shows_what_the_records_hold(tmp_path):
    training.train(digits(train__tensorboard=True), tmp_path)
    shown, rows, layers = events(tmp_path), training.load_run(tmp_path).metrics, lines(tmp_path)
    assert len(shown.Tags()["scalars"]) == 8 + 3 * (len(KEYS) - 4)  # residual is not defined, three are not scalars
    assert len(shown.Tags()["histograms"]) == 3
    for tag, expected in (
        ("accuracy/test", [row["test_accuracy"] for row in rows]),
        ("bits/flip rate", [row["flip_rate"] for row in rows]),
        ("p_star/conv3", [line["layers"]["conv3"]["p_star"] for line in layers]),
    ):
        assert [event.step for event in shown.Scalars(tag)] == [1, 2]
        assert [event.value for event in shown.Scalars(tag)] == pytest.approx(expected, rel=1e-6)
    histogram = shown.Histograms("latents/conv2")[-1].histogram_value
    entry = layers[-1]["layers"]["conv2"]
    assert histogram.num == sum(entry["latent_histogram"])
    assert histogram.sum / histogram.num == pytest.approx(entry["latent_mean"])
    assert sum(histogram.bucket) == histogram.num


def test_a_resumed_run_is_logged_once(tmp_path):
    recipe = digits(train__tensorboard=True)
    stopped_after_one_epoch(recipe, tmp_path)
    training.train(recipe, tmp_path, resume=True)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    shown = events(tmp_path)
    assert [event.step for event in shown.Scalars("loss/test")] == [1, 2]
    assert [event.step for event in shown.Histograms("latents/fc1")] == [1, 2]


def test_no_event_log_where_it_is_switched_off_even_in_a_resumed_run(tmp_path):
    stopped_after_one_epoch(digits(train__tensorboard=False), tmp_path)
    assert not (tmp_path / "tensorboard").exists()
    training.train(digits(train__tensorboard=True), tmp_path, resume=True)  # it may differ
    assert [event.step for event in events(tmp_path).Scalars("lr")] == [1, 2]


def test_an_event_log_that_cannot_be_written_says_what_to_do(tmp_path):
    (tmp_path / "tensorboard").write_text("not a folder")
    with pytest.raises(eb.errors.FileError, match=r"cannot write .*tensorboard: .*--train\.tensorboard false"):
        training.train(digits(train__tensorboard=True), tmp_path)
