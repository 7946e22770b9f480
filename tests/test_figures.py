"""equibit figure: which runs a figure draws, what it writes, and that what it plans to train is what it looks for."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recorded_runs import record

from equibit import recipes, sweep
from equibit.cli import figure_runs, main
from equibit.cli.main import make_parser
from equibit.errors import FileError, FormatError, InputError
from equibit.figures import catalog, figure4, runs
from equibit.figures.plan import BI_HALF as BI_HALF_METHOD
from equibit.figures.plan import Panel, Setting, gather, trainings
from equibit.figures.publish import publish
from equibit.figures.runs import RunRecord

TRAINED = [name for name in catalog.NAMES if name != "6"]
SUFFIXES = ("png", "svg", "csv", "json")


def test_every_figure_is_in_the_table():
    assert list(catalog.NAMES) == [*"12345678", "siman", "gwt"]
    with pytest.raises(InputError, match="siman"):
        catalog.get("simen")


def few(kind, quick, seeds=2):
    """The panels with few seeds, and what they train with them."""
    panels = tuple(replace(panel, seeds=min(panel.seeds, seeds)) for panel in kind.panels(quick))
    return panels, trainings(panels)


def quick_images(name):
    """Training images of --quick: more where many runs are short, because only their last epoch is drawn."""
    return 10_000 if name in {"4", "5", "8"} else 5_000


def one_of_each(settings):
    """The last setting of each label and recipe."""
    return {(setting.label, setting.recipe): setting for setting in settings}.values()


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", TRAINED)
def test_what_is_trained_is_what_is_looked_for(name, quick):
    """Every planned training is a shipped recipe with changes it takes; all of a panel are drawn together.

    Of each curve and recipe one point; `test_drawn_from_records` has them all.
    """
    panels = few(catalog.get(name), quick, seeds=1)[0]
    panels = [replace(panel, settings=tuple(one_of_each(panel.settings))) for panel in panels]
    needed = trainings(panels)
    jobs = sweep.jobs([(t.recipe, t.changes, t.seed) for t in needed], Path("runs"))
    assert len({job.out for job in jobs}) == len(jobs) >= 1
    assert max(len(job.out.name) for job in jobs) < 200  # a file name has 255 bytes at most
    for job in jobs:
        if any(isinstance(value, str) for value in job.overrides.values()):  # the command of its process says the same
            told = make_parser(job.words[1:], ["train"]).parse_args(job.words)["train"]
            assert recipes.from_arguments(told, recipes.load(job.source)) == job.recipe
    records = [RunRecord(job.out, job.recipe.to_dict()) for job in jobs]
    for found_record in records:
        found_record.__dict__["epochs"] = [{}] * found_record.get("train.epochs")  # finished
    for panel in panels:
        found = gather(panel, records)
        assert found.missing == ()
        assert len(found.series) == len(panel.settings)
    assert {record.get("data.train_images") for record in records} == ({quick_images(name)} if quick else {None})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Folders of runs by figure: all that its --quick plans, of at most two seeds."""
    made = {}

    def make(name):
        name = "1" if name == "2" else name  # the same runs
        if name not in made:
            made[name] = tmp_path_factory.mktemp(f"figure{name}")
            for i, training in enumerate(few(catalog.get(name), quick=True)[1]):
                level = 0.6 - (training.changes.get("method.ratio", 0.5) - 0.5) ** 2
                record(made[name] / f"{i}", training.recipe, training.changes, seed=training.seed, level=level)
        return made[name]

    return make


@pytest.mark.parametrize("name", TRAINED)
def test_drawn_from_records(name, recorded, tmp_path):
    kind, folder = catalog.get(name), recorded(name)
    panels, needed = few(kind, quick=True)
    data = publish(kind, panels, [folder], tmp_path / "a")
    assert data == json.loads((tmp_path / "a" / f"{name}.json").read_text())
    assert data["missing"] == []
    assert sum(series["n"] for panel in data["panels"] for series in panel["series"]) >= len(needed)
    for panel in data["panels"]:
        assert f"{panel['series'][0]['epochs']} epochs of {quick_images(name):,} images" in panel["budget"]
        assert panel["left_out"] == 0
    with (tmp_path / "a" / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["panel"] for row in rows} == {panel["title"] for panel in data["panels"]}
    with Image.open(tmp_path / "a" / f"{name}.png") as picture:
        assert picture.width == 1440  # 7.2 inches at 200 dpi
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    publish(kind, panels, [folder], tmp_path / "b")
    for suffix in SUFFIXES:
        first, second = ((tmp_path / side / f"{name}.{suffix}").read_bytes() for side in "ab")
        assert first == second


@pytest.mark.parametrize("name", ["1", "2", "siman", "gwt"])
def test_runs_that_recorded_no_layers(name, recorded, tmp_path):
    """Older runs: what they hold is drawn, and what they lack is named."""
    shutil.copytree(recorded(name), tmp_path / "runs")
    for path in (tmp_path / "runs").rglob("layers.jsonl"):
        path.unlink()
    data = publish(catalog.get(name), few(catalog.get(name), quick=True)[0], [tmp_path / "runs"], tmp_path / "out")
    assert bool(data["missing"]) == (name != "2")
    assert all("no layers.jsonl" in text for text in data["missing"])
    assert (tmp_path / "out" / f"{name}.png").stat().st_size > 10_000


def test_numbers_of_figure_5(recorded, tmp_path):
    data = publish(catalog.get("5"), few(catalog.get("5"), quick=True)[0], [recorded("5")], tmp_path)
    assert [panel["title"] for panel in data["panels"]] == ["Conv-2, CIFAR-10", "Conv-2, CIFAR-100"]
    with (tmp_path / "5.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["panel"] == "Conv-2, CIFAR-10"]
    for series in data["panels"][0]["series"]:
        ratio = series["where"]["method.ratio"]
        finals = [float(row["final_accuracy"]) for row in rows if float(row["x"]) == ratio]
        assert len(finals) == series["n"] == 2
        assert series["seeds"] == [0, 1]
        assert series["final_accuracy"]["mean"] == pytest.approx(np.mean(finals))
        assert series["final_accuracy"]["std"] == pytest.approx(np.std(finals, ddof=1))
        assert (series["final_accuracy"]["min"], series["final_accuracy"]["max"]) == (min(finals), max(finals))
    shape = data["ratios"]["Conv-2, CIFAR-10"]
    assert shape["best"] == 0.5
    assert shape["asymmetry"] == pytest.approx(0, abs=1e-12)  # the levels are symmetric, the noise that of the seed


def test_the_tests_of_figure_4_tell_location_from_spread():
    rng = np.random.default_rng(0)
    narrow, wide = rng.normal(0, 1, 100), rng.normal(0, 4, 100)
    found = figure4.compare(list(narrow), list(wide))
    assert found["mann_whitney_p"] > 0.05
    assert found["brown_forsythe_p"] < 1e-6
    found = figure4.compare(list(narrow), list(narrow + 2))
    assert found["mann_whitney_p"] < 1e-6
    assert found["brown_forsythe_p"] == pytest.approx(1)
    assert figure4.compare([1.0, 2.0], [1.0, 2.0, 3.0]) is None


SIGN, BI_HALF = "cifar10-conv2-sign.common-1w32a-short", "cifar10-conv2-bi_half.common-1w32a-short"


def test_budgets_are_never_mixed(tmp_path):
    """Planned runs go first; then the budget in which most was trained; the others are counted."""
    (panel,) = catalog.get("4").panels(True)
    record(tmp_path / "planned", SIGN, panel.budget)
    for seed in range(3):
        for name, recipe in (("sign", SIGN), ("bi_half", BI_HALF)):
            record(tmp_path / f"longer.{name}.{seed}", recipe, seed=seed)
    found = gather(panel, runs.find([tmp_path]))
    assert [(s.setting.label, [run.path.name for run in s.runs]) for s in found.series] == [("sign", ["planned"])]
    assert found.left_out == 6
    assert found.missing == ("Conv-2, CIFAR-10: sign: 1 of 10 runs", "Conv-2, CIFAR-10: bi-half: 0 of 10 runs")
    shutil.rmtree(tmp_path / "planned")
    record(tmp_path / "single", SIGN, {"train.epochs": 50}, seed=7)
    found = gather(panel, runs.find([tmp_path]))
    assert [(s.setting.label, [run.seed for run in s.runs]) for s in found.series] == [
        ("sign", [0, 1, 2]),
        ("bi-half", [0, 1, 2]),
    ]
    assert (found.left_out, found.common["train.epochs"]) == (1, 5)


def test_a_seed_counts_once_and_an_unfinished_run_not_at_all(tmp_path):
    (panel,) = catalog.get("4").panels(True)
    for name in ("a", "b"):
        record(tmp_path / name, SIGN)
    record(tmp_path / "c", BI_HALF, epochs=2)
    found = gather(panel, runs.find([tmp_path]))
    assert [run.path.name for series in found.series for run in series.runs] == ["a"]
    assert found.left_out == 1
    assert found.missing[1] == "Conv-2, CIFAR-10: bi-half: 0 of 10 runs (1 unfinished)"


def test_runs_of_other_arguments_or_networks_are_not_drawn(tmp_path):
    (panel,) = catalog.get("4").panels(True)
    record(tmp_path / "ratio", BI_HALF, {"method.ratio": 0.3})
    record(tmp_path / "pruned", SIGN, {"method.density": 0.5})
    record(tmp_path / "binary activations", SIGN, {"activation": {"name": "bireal"}})
    record(tmp_path / "network", "cifar10-conv4-sign-1w32a-short")
    record(tmp_path / "float", "cifar10-conv2-float.common-short")
    assert len(runs.find([tmp_path])) == 5
    assert gather(panel, runs.find([tmp_path])).series == ()


def test_a_key_that_older_runs_do_not_know_is_no_difference(tmp_path):
    (panel,) = catalog.get("4").panels(True)
    for seed in range(2):
        record(tmp_path / str(seed), SIGN, seed=seed)
    config = tmp_path / "1" / "config.yaml"
    new = ("train_images: null, ", "decay_latents: false", "tensorboard: true")
    text = config.read_text()
    for words in new:
        assert words.rstrip(", ") in text.replace("\n", " ")
    lines = text.replace("train_images: null", "path: null")
    for words in (", decay_latents: false", ", tensorboard: true"):
        lines = lines.replace(words, "")
    config.write_text(lines)
    (series,) = gather(panel, runs.find([tmp_path])).series
    assert len(series.runs) == 2


def test_no_runs_name_the_command_and_bad_folders_are_refused(tmp_path, capsys):
    panels = catalog.get("5").panels(True)
    with pytest.raises(FileError, match="equibit figure 5 --quick"):
        publish(catalog.get("5"), panels, [tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileError, match="no folder"):
        publish(catalog.get("5"), panels, [tmp_path / "nowhere"], tmp_path / "out")
    for number, (name, content, match) in enumerate(
        (
            ("config.yaml", "a: [", "not valid YAML"),
            ("config.yaml", "- 1\n", "no mapping"),
            ("metrics.jsonl", "{", "damaged"),
        )
    ):
        folder = record(tmp_path / str(number), BI_HALF)
        (folder / name).write_text(content)
        with pytest.raises(FormatError, match=match):
            publish(catalog.get("5"), panels, [folder], tmp_path / "out")
    assert main(["figure", "5", "--from", str(tmp_path / "nowhere")]) == 2
    assert main(["figure", "5", "--repeat", "0", "--from", str(tmp_path)]) == 2
    assert "repeat is 0" in capsys.readouterr().err


def test_the_verb_draws_old_runs(tmp_path, capsys):
    """From the repository's own first runs, which know neither layers.jsonl nor train_images."""
    old = Path(__file__).parents[1] / "results" / "cifar10-conv2-short"
    assert main(["figure", "2", "--from", str(old), "--out", str(tmp_path), "--quick"]) == 0
    printed = capsys.readouterr().out
    assert "Conv-2, CIFAR-10: n = 1, 5 epochs of all images, adam 0.001, L2 0, cosine, tested on 9,977." in printed
    assert "missing: Conv-2, CIFAR-10: IR-Net: 0 of 3 runs" in printed
    assert {path.name for path in tmp_path.iterdir()} == {f"2.{suffix}" for suffix in SUFFIXES}


def test_a_real_training_is_drawn(tmp_path):
    """From the plan through the sweep, the recording and the reading to the picture; then nothing is left to train."""
    panel = Panel(
        "digits",
        {"data.name": "digits"},
        (Setting("bi-half", "digits-digits_net-bi_half-1w32a", BI_HALF_METHOD),),
        {"train.epochs": 2, "data.train_images": 200, "train.tensorboard": False},
    )
    kind = replace(catalog.get("1"), panels=lambda quick: (panel,))
    assert figure_runs.train(kind, [panel], tmp_path / "runs", jobs=1) == 0
    data = publish(kind, [panel], [tmp_path / "runs"], tmp_path)
    assert data["missing"] == []
    assert "2 epochs of 200 images" in data["panels"][0]["budget"]
    with (tmp_path / "1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0.9 < float(row["weights"]) <= 1 and 0 <= float(row["activations"]) <= 1 for row in rows)
    assert data["hardware"][0]["cpu"]
    assert figure_runs.train(kind, [panel], tmp_path / "runs", jobs=1) == 0


@pytest.fixture
def trained(monkeypatch):
    """Trainings that write a record in place of training, or fail."""
    started = []

    class Recorded(sweep.Sweep):
        def __init__(self, planned, *, parallel, replicas):
            self.planned = planned

        def run(self, follow=None):
            outcomes = []
            for job in self.planned:
                started.append(job.out.name)
                state = "failed" if job.recipe.method["name"] == "ir_net" else "finished"
                if state == "finished":
                    record(job.out, job.source, job.overrides, seed=job.recipe.train.seed)
                outcomes.append(sweep.Outcome(job.source, str(job.out), state, 8, 0.5, 0.5, 1.0, "the.log"))
            return tuple(outcomes)

    monkeypatch.setattr(sweep, "Sweep", Recorded)
    return started


def test_the_verb_trains_what_is_missing_and_draws_what_it_can(trained, tmp_path, capsys):
    words = ["figure", "1", "--quick", "--repeat", "2", "--out", str(tmp_path)]
    assert main(words) == 1  # IR-Net failed
    out, err = capsys.readouterr()
    assert len(trained) == 6
    assert "6 trainings, of which 6 (48 epochs) are left" in err
    assert "failed; see the.log" in err
    assert "missing: Conv-2, CIFAR-10: IR-Net: 0 of 2 runs" in out
    trained.clear()
    assert main([*words, "--json"]) == 1
    assert len(trained) == 2  # the others are there
    data = json.loads(capsys.readouterr().out)
    assert data == json.loads((tmp_path / "1.json").read_text())
    assert data["figure"] == "1"
