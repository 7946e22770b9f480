"""Training: the run folder, what is measured, and what happens when it goes wrong."""

import json
import math

import filelock
import pytest
import torch
from torch import nn

from equibit import analysis, convert, data, recipes, training
from equibit.errors import FileError, FormatError, InputError, StateError
from equibit.training import checkpoint, loop

ROW_KEYS = [
    "epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "test_n", "bit_ratio",
    "bit_entropy", "flip_rate", "seconds",
]  # fmt: skip
SUMMARY_KEYS = [
    "recipe", "method", "final_accuracy", "best_accuracy", "best_epoch", "test_n", "skipped_images", "epochs",
    "seed", "seconds", "parameters", "binary_parameters", "packed_bytes", "hardware", "versions", "commit",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def digits(method="bi_half", **changes):
    """The digits recipe of a method, two epochs unless told."""
    name = "digits-digits_net-float" if method is None else f"digits-digits_net-{method}-1w32a"
    overrides = {"train.epochs": 2, **{key.replace("__", "."): value for key, value in changes.items()}}
    return recipes.override(recipes.load(name), overrides)


def without_seconds(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished bi-half run of two epochs: recipe, folder, summary, rows seen by the callback."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    recipe, rows = digits(), []
    summary = training.train(recipe, out, on_epoch=rows.append)
    return recipe, out, summary, rows


# --- what a run gives -----------------------------------------------------------------------------


def test_fewer_training_images(tmp_path):
    """A run of 100 images is that of a data set of 100 images; its folder says so and goes on."""
    recipe = digits(data__train_images=100, data__batch_size=50)
    summary = training.train(recipe, tmp_path)
    assert summary["test_n"] == 360
    assert recipes.load(tmp_path / "config.yaml").data.train_images == 100
    assert training.train(recipe, tmp_path, resume=True) == summary
    with pytest.raises(InputError, match=r"data\.train_images: 100 there, 200 now"):
        training.train(digits(data__train_images=200, data__batch_size=50), tmp_path, resume=True)
    with pytest.raises(InputError, match=r"data\.train_images is 2000, but digits has 1437"):
        training.train(digits(data__train_images=2000), tmp_path / "more")


@pytest.mark.parametrize("method", [None, "sign", "bi_half"])
def test_digits_are_learned(tmp_path, method):
    summary = training.train(digits(method, train__epochs=3), tmp_path)
    assert summary["final_accuracy"] > 0.95


def test_the_rows(finished):
    recipe, out, _, rows = finished
    assert [list(row) for row in rows] == [ROW_KEYS] * 2
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()] == rows
    assert {row["test_n"] for row in rows} == {len(data.load("digits").test_labels)}
    assert [row["bit_entropy"] for row in rows] == pytest.approx([1, 1])  # bi-half: equal bits by construction
    assert [row["bit_ratio"] for row in rows] == pytest.approx([0.5] * 2)
    assert all(0 < row["flip_rate"] < 0.5 for row in rows)
    steps = len(data.load("digits").train_labels) // recipe.data.batch_size
    assert rows[0]["lr"] == pytest.approx(recipe.optimizer.lr / steps)  # the first step of a warm-up of one epoch


def test_the_summary(finished):
    recipe, out, summary, rows = finished
    assert list(summary) == SUMMARY_KEYS
    assert json.loads((out / "summary.json").read_text()) == summary
    assert (summary["recipe"], summary["method"], summary["epochs"]) == (recipe.name, "bi_half", 2)
    assert summary["final_accuracy"] == rows[-1]["test_accuracy"]
    best = max(row["test_accuracy"] for row in rows)
    assert summary["best_accuracy"] == best
    assert summary["best_epoch"] == next(row["epoch"] for row in rows if row["test_accuracy"] == best)
    assert summary["seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
    assert set(summary["hardware"]) == {"cpu", "cores", "threads", "kernel", "device"}
    assert set(summary["versions"]) == {"python", "torch", "numpy", "equibit"}
    size = analysis.summary(training.load_run(out).model, (1, 1, 8, 8)).to_dict()
    assert {k: summary[k] for k in ("parameters", "binary_parameters", "packed_bytes")} == {
        k: size[k] for k in ("parameters", "binary_parameters", "packed_bytes")
    }


def test_the_folder_holds_what_the_contract_names_and_no_pickle(finished):
    _, out, _, _ = finished
    names = {file.name for file in out.iterdir()} - {".lock"}
    assert names == {
        "config.yaml", "metrics.jsonl", "layers.jsonl", "state.safetensors", "best.safetensors", "summary.json",
        "tensorboard",
    }  # fmt: skip


def test_the_config_loads_back_complete(finished):
    recipe, out, _, _ = finished
    digits_set = data.load("digits")
    stored = recipes.load(out / "config.yaml")
    assert stored == loop.complete(recipe, digits_set)
    assert stored.name == recipe.name
    assert (stored.data.mean, stored.data.std) == (digits_set.mean, digits_set.std)


def test_a_float_run_has_no_bits(tmp_path):
    training.train(digits(None, train__epochs=1), tmp_path)
    (row,) = training.load_run(tmp_path).metrics
    assert (row["bit_ratio"], row["bit_entropy"], row["flip_rate"]) == (None, None, None)


def test_flip_rate_compares_with_the_end_of_the_epoch_before(tmp_path, monkeypatch):
    ends = []
    original = loop.Training._binary_weights
    monkeypatch.setattr(loop.Training, "_binary_weights", lambda self: ends.append(original(self)) or ends[-1])
    rows = []
    training.train(digits("sign"), tmp_path, on_epoch=rows.append)
    assert len(ends) == 5  # at the start, and before the last step and at the end of each epoch
    ends = ends[::2]
    assert [row["flip_rate"] for row in rows] == [analysis.flip_rate(*ends[i : i + 2]) for i in range(2)]


def test_equal_seeds_give_equal_runs_and_others_do_not(tmp_path, finished):
    recipe, out, _, rows = finished
    again, other = [], []
    training.train(recipe, tmp_path / "again", on_epoch=again.append)
    training.train(recipes.override(recipe, {"train.seed": 1}), tmp_path / "other", on_epoch=other.append)
    assert without_seconds(again) == without_seconds(rows)
    assert without_seconds(other) != without_seconds(rows)
    first, second = (checkpoint.load_state(run / "state.safetensors") for run in (out, tmp_path / "again"))
    assert all(torch.equal(first.model[name], second.model[name]) for name in first.model)
    assert all(torch.equal(first.optimizer[name], second.optimizer[name]) for name in first.optimizer)


def test_training_leaves_the_random_state_of_the_caller_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    training.train(digits(train__epochs=1), tmp_path)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer__name": "adam", "optimizer__lr": 1e-3},
        {"optimizer__name": "adamw", "optimizer__lr": 1e-3},
        {"optimizer__nesterov": True},
        {"train__channels_last": True},
        {"train__amp": True},
        {"train__label_smoothing": 0.1},
        {"data__augment": "shift"},
        {
            "data__batch_size": 100_000,
            "schedule__warmup_epochs": 0,
            "optimizer__lr": 0.01,
        },  # one step an epoch
    ],
    ids=str,
)
def test_options_train(tmp_path, finished, changes):
    rows = []
    training.train(digits(**changes), tmp_path, on_epoch=rows.append)
    assert rows[1]["train_loss"] < rows[0]["train_loss"]
    assert rows[0]["train_loss"] != finished[-1][0]["train_loss"]  # the option does something


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
def test_compiled_training(tmp_path):
    summary = training.train(digits(train__compile=True, train__epochs=4), tmp_path)
    assert summary["final_accuracy"] > 0.95


@pytest.mark.parametrize(("unit", "expected"), [("step", [0, 0.25, 0.5, 0.75]), ("epoch", [0, 0, 0.5, 0.5])])
def test_advance_sees_the_progress_before_every_step(tmp_path, monkeypatch, unit, expected):
    seen = []
    monkeypatch.setattr(convert, "advance", lambda model, progress: seen.append(progress))
    recipe = digits("sign", schedule__method=unit, data__batch_size=700)
    training.train(recipe, tmp_path)
    assert seen == expected


# --- evaluation -----------------------------------------------------------------------------------


class Threshold(nn.Module):
    """Class 1 where the first pixel is positive after normalisation; remembers the mode it ran in."""

    def __init__(self):
        super().__init__()
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        first = x[:, 0, 0, 0]
        return torch.stack([-first, first], dim=1)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_every_image_is_counted(batch_size):
    images = torch.zeros(7, 1, 2, 2, dtype=torch.uint8)
    images[:3, 0, 0, 0] = 255
    labels = torch.tensor([1, 1, 1, 0, 0, 0, 1])  # the last one, alone in its batch of 1, is wrong
    model = Threshold()
    result = training.evaluate(model, data.TensorSplit(images, labels), (0.5,), (0.5,), batch_size=batch_size)
    assert (result.n, result.accuracy) == (7, 6 / 7)
    right, wrong = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert result.loss == pytest.approx((6 * right + wrong) / 7)
    assert set(model.modes) == {False}
    assert model.training


def test_evaluation_of_nothing():
    nothing = data.TensorSplit(torch.zeros(0, 1, 2, 2, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(InputError, match="0 images"):
        training.evaluate(Threshold(), nothing, (0,), (1,))


# --- reading a run back ---------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["final", "best"])
def test_a_run_read_back_scores_what_it_says(finished, which):
    _, out, summary, rows = finished
    run = training.load_run(out, which)
    result = training.evaluate(run.model, data.load("digits").test, run.recipe.data.mean, run.recipe.data.std)
    assert result.accuracy == summary[f"{which}_accuracy"]
    assert (run.summary, run.metrics) == (summary, rows)
    assert not run.model.training
    assert len(convert.binary_weights(run.model)) == 3


def test_best_and_final_differ_when_the_accuracy_falls(tmp_path):
    training.train(digits(), tmp_path)
    folder = loop.RunFolder(tmp_path)
    state = checkpoint.load_state(folder.state)
    worse = [dict(row) for row in state.history]
    worse.append({**worse[-1], "epoch": 3, "test_accuracy": 0.0})
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.model.items()}
    folder.save_epoch(checkpoint.State(worse, zeros, state.optimizer))
    assert not any(p.any() for p in training.load_run(tmp_path, "final").model.parameters())
    assert any(p.any() for p in training.load_run(tmp_path, "best").model.parameters())


def test_what_is_no_run(tmp_path):
    with pytest.raises(FileError, match=r"config\.yaml"):
        training.load_run(tmp_path)
    (tmp_path / "config.yaml").write_text(digits().to_yaml())
    with pytest.raises(FileError, match="no epoch"):
        training.load_run(tmp_path)
    with pytest.raises(InputError, match="best"):
        training.load_run(tmp_path, "bets")


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [None, "bi_half"])
def test_divergence_names_epoch_layer_and_remedy_and_keeps_the_last_state(tmp_path, monkeypatch, method):
    recipe = digits(method)
    train_epoch = loop.Training._train_epoch

    def poison(self, epoch):
        result = train_epoch(self, epoch)
        if epoch == 1:
            next(iter(self.model.parameters())).data.view(-1)[0] = math.nan
        return result

    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "_train_epoch", poison)
        with pytest.raises(StateError, match=r"epoch 2.*'conv1\.weight'.*optimizer\.lr.*after epoch 1 is kept"):
            training.train(recipe, tmp_path)
    assert len(training.load_run(tmp_path).metrics) == 1
    training.train(recipe, tmp_path, resume=True)  # nothing of the bad epoch was kept
    assert len(training.load_run(tmp_path).metrics) == 2


def test_divergence_of_a_binary_layer_names_it(tmp_path, monkeypatch):
    def poison(self, epoch):
        self.model.conv2.parametrizations.weight.original.data.fill_(math.inf)
        return 1.0, 0.5

    monkeypatch.setattr(loop.Training, "_train_epoch", poison)
    with pytest.raises(StateError, match=r"epoch 1.*'conv2\.weight'.*No epoch was finished"):
        training.train(digits(), tmp_path)


def test_a_learning_rate_that_is_far_too_high_diverges_with_advice(tmp_path):
    recipe = digits(None, optimizer__lr=1e30, schedule__warmup_epochs=0, train__epochs=1)
    with pytest.raises(StateError, match=r"loss is (nan|inf)"):
        training.train(recipe, tmp_path)


def test_a_run_is_never_overwritten(finished):
    recipe, out, _, _ = finished
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=r"already holds a run.*--resume.*--out"):
        training.train(recipe, out)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_resuming_a_finished_run_gives_its_summary(finished, monkeypatch):
    recipe, out, summary, _ = finished
    monkeypatch.setattr(loop.Training, "run_epoch", None)
    assert training.train(recipe, out, resume=True) == summary


def test_a_lost_summary_is_written_again(finished, tmp_path):
    recipe, out, summary, _ = finished
    for name in ("config.yaml", "state.safetensors", "best.safetensors"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    again = training.train(recipe, tmp_path, resume=True)
    assert {**again, "commit": ""} == {**summary, "commit": ""}  # somebody may commit during the tests
    assert (tmp_path / "metrics.jsonl").read_text() == (out / "metrics.jsonl").read_text()


def test_resuming_with_another_recipe_names_the_difference(finished):
    recipe, out, _, _ = finished
    other = recipes.override(recipe, {"train.epochs": 9, "method.ratio": 0.4})
    with pytest.raises(InputError, match=r"method\.ratio: 0\.5 there, 0\.4 now, train\.epochs: 2 there, 9 now"):
        training.train(other, out, resume=True)


def test_resume_begins_where_there_is_nothing_yet(tmp_path):
    recipe = digits(train__epochs=1)
    training.train(recipe, tmp_path / "empty", resume=True)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(loop.complete(recipe, data.load("digits")).to_yaml())
    training.train(recipe, tmp_path / "config", resume=True)
    runs = [training.load_run(tmp_path / name).metrics for name in ("empty", "config")]
    assert without_seconds(runs[0]) == without_seconds(runs[1])


def test_a_state_without_its_config_is_refused(finished, tmp_path):
    recipe, out, _, _ = finished
    (tmp_path / "state.safetensors").write_bytes((out / "state.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"no config\.yaml"):
        training.train(recipe, tmp_path, resume=True)


def test_one_process_at_a_time(tmp_path):
    with (
        filelock.FileLock(tmp_path / ".lock"),
        pytest.raises(StateError, match="another process"),
    ):
        training.train(digits(), tmp_path)
    training.train(digits(train__epochs=1), tmp_path)


def test_an_output_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="run folder"):
        training.train(digits(), tmp_path / "file")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model__in_shape": [1, 9, 9]}, "in_shape"),
        ({"model__num_classes": 7}, "num_classes"),
        ({"data__mean": [0.1, 0.2]}, "channels"),
    ],
)
def test_recipe_and_data_must_fit(tmp_path, changes, word):
    with pytest.raises(InputError, match=word):
        training.train(digits(**changes), tmp_path)


def test_shape_mean_and_std_may_be_left_to_the_data_set(tmp_path):
    recipe = digits(train__epochs=1, model__in_shape=None)
    training.train(recipe, tmp_path)
    assert training.load_run(tmp_path).recipe.model.in_shape == (1, 8, 8)


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests a machine without CUDA")
def test_a_missing_device_is_named(tmp_path):
    with pytest.raises(InputError, match=r"train\.device is 'cuda'"):
        training.train(digits(train__device="cuda"), tmp_path)


# --- the state file -------------------------------------------------------------------------------


def test_damaged_states_are_named_errors(finished, tmp_path):
    recipe, out, _, _ = finished
    for name in ("config.yaml", "best.safetensors"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    whole = (out / "state.safetensors").read_bytes()
    for damaged in (
        b"",
        whole[:100],
        whole[: len(whole) // 2],
        b"\xff" * 64,
        (out / "best.safetensors").read_bytes(),
    ):
        (tmp_path / "state.safetensors").write_bytes(damaged)
        with pytest.raises(FormatError, match=r"state\.safetensors"):
            training.train(recipe, tmp_path, resume=True)
        with pytest.raises(FormatError, match=r"state\.safetensors"):
            training.load_run(tmp_path)


def test_a_state_of_another_network_is_refused(finished, tmp_path):
    recipe, out, _, _ = finished
    (tmp_path / "config.yaml").write_bytes((out / "config.yaml").read_bytes())
    state = checkpoint.load_state(out / "state.safetensors")
    model = {name: tensor for name, tensor in state.model.items() if not name.startswith("head")}
    checkpoint.save_state(tmp_path / "state.safetensors", checkpoint.State(state.history, model, state.optimizer))
    with pytest.raises(FormatError, match="head"):
        training.train(recipe, tmp_path, resume=True)


def test_tied_and_channels_last_tensors_survive(tmp_path):
    tied = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state = checkpoint.State(
        [{"epoch": 1}], {"a": tied, "b": tied, "n": torch.tensor(7)}, {"a/step": torch.tensor(3.0)}
    )
    checkpoint.save_state(tmp_path / "s", state)
    loaded = checkpoint.load_state(tmp_path / "s")
    assert loaded.history == state.history
    assert all(torch.equal(loaded.model[k], state.model[k]) for k in state.model)
    assert torch.equal(loaded.optimizer["a/step"], torch.tensor(3.0))
