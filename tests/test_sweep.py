"""Grids and repetitions: what the command line says, which runs it means, and that they are trained once."""

import json
import re
import sys
from fractions import Fraction

import pytest
from rich.console import Console

from equibit import cli, recipes, run_list, sweep
from equibit.cli import main
from equibit.errors import FileError, InputError
from equibit.recipes.grid import Axis, axis, grid
from equibit.spread import Spread
from equibit.sweep import Sweep

RECIPE = "digits-digits_net-bi_half-1w32a"
SMALL = {"train.epochs": 1, "data.train_images": 64, "data.batch_size": 32, "train.tensorboard": False}


# --- axes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=0.1,...,0.9", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        ("a=0.1,0.3,...,0.9", [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("a=1,...,4", [1, 2, 3, 4]),
        ("a=4,...,1", [4, 3, 2, 1]),
        ("a=0,5e-1,...,2", [0, 0.5, 1.0, 1.5, 2]),
        ("a=-0.2,...,0.2", [-0.2, -0.1, 0.0, 0.1, 0.2]),
        ("a=0.05,0.1,...,0.2,0.5", [0.05, 0.1, 0.15, 0.2, 0.5]),
        ("a=0,...,0.3,0.5,...,0.9", [0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9]),
        ("a=1,2", [1, 2]),
        ("a=he,none", ["he", "none"]),
        ("a=true,null,1e-4", [True, None, 1e-4]),
        ("a=[1, 2],[3]", [[1, 2], [3]]),
        ("method={name: sign, scale: he},null", [{"name": "sign", "scale": "he"}, None]),
        ("a=b=c", ["b=c"]),
    ],
)
def test_axes(text, values):
    found = axis(text)
    assert found == Axis(text.partition("=")[0], tuple(values))
    assert [type(value) for value in found.values] == [type(value) for value in values]


def test_methods_by_name():
    assert axis("method=sign,bi_half") == axis("method.name=sign,bi_half") == Axis("method.name", ("sign", "bi_half"))
    assert axis("activation=siman").key == "activation.name"


def test_steps_are_exact():
    """In binary floats 0.1 + 0.2 is 0.30000000000000004, which no counting rule would take for 0.3."""
    found = axis("method.ratio=0.001,...,0.999").values
    assert [Fraction(str(value)) for value in found] == [Fraction(i, 1000) for i in range(1, 1000)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method.ratio", "write it as KEY=A,B,C"),
        ("=0.1", "write it as"),
        ("a=", "write it as"),
        ("a=1,,2", "write it as"),
        ("a=...,2", "stands between two numbers"),
        ("a=1,...", "stands between two numbers"),
        ("a=1,...,...,3", "stands between two numbers"),
        ("a=x,...,y", "stands between two numbers"),
        ("a=0,...,inf", "stands between two numbers"),
        ("a=0.1,0.3,...,0.8", "steps of 0.2 do not lead from 0.3 to 0.8"),
        ("a=0.1,0.3,...,0.2", "steps of 0.2 do not lead"),
        ("a=1,1,...,3", "do not lead"),
        ("a=3,...,3", "do not lead"),
        ("a=0,...,1.00001", "do not lead"),
        ("a=1,1.0,1", "a value twice"),
        ("a=[1", "not valid YAML"),
        ("train.seed=1,2", "--repeat N"),
    ],
)
def test_wrong_axes(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        axis(text)


def test_grids():
    assert grid([]) == [{}]
    found = grid([axis("a=1,2"), axis("b=x,y")])
    assert found == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    with pytest.raises(InputError, match="names a 2 times"):
        grid([axis("a=1,2"), axis("a=3")])


# --- the runs -------------------------------------------------------------------------------------------


def planned(out, *values, seeds=(0,), **changes):
    overrides = SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    return sweep.jobs([(RECIPE, {**overrides, "method.ratio": v}, s) for v in values for s in seeds], out)


def test_runs_have_a_folder_each(tmp_path):
    first, second = sweep.jobs([(RECIPE, {"method.ratio": 0.3}, 0), ("digits-digits_net-float", {}, 7)], tmp_path)
    assert first.out == tmp_path / f"{RECIPE}.ratio=0.3.s0"
    assert second.out == tmp_path / "digits-digits_net-float.s7"
    assert (first.recipe.method["ratio"], first.recipe.train.seed, second.recipe.train.seed) == (0.3, 0, 7)
    changes = {"method.name": "sign", "optimizer.name": "adam", "data.mean": [0.5], "schedule.warmup_epochs": 0.5}
    (job,) = sweep.jobs([(RECIPE, changes, 1)], tmp_path)
    name = f"{RECIPE}.method.name=sign.optimizer.name=adam.mean=_0.5_.warmup_epochs=0.5.s1"
    assert job.out == tmp_path / name
    again = recipes.override(recipes.load(RECIPE), {**changes, "train.seed": 1})
    assert job.recipe == again


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method.ratoi": 0.3}, "method.ratoi=0.3: .* Did you mean 'ratio'"),
        ({"trian.epochs": 3}, "Did you mean 'train'"),
        ({"train.epoch": 3}, "Did you mean 'epochs'"),
        ({"method.ratio": 1.5}, "ratio is 1.5"),
        ({"optimizer.lr": "fast"}, "optimizer.lr"),
    ],
)
def test_wrong_keys_and_values_are_refused_at_once(changes, message, tmp_path):
    with pytest.raises(InputError, match=f"{RECIPE} with {message}" if "with" in message else message):
        sweep.jobs([(RECIPE, {}, 0), (RECIPE, changes, 0)], tmp_path)


def test_a_run_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="2 runs would write to"):
        planned(tmp_path, 0.3, 0.3)


def test_what_cannot_be_trained_is_refused_before_anything_is(tmp_path, monkeypatch):
    for parallel, replicas in ((0, 1), (1, 0), (2, 2)):
        with pytest.raises(InputError, match="jobs"):
            Sweep(planned(tmp_path, 0.3), parallel=parallel, replicas=replicas)
    with pytest.raises(InputError, match="train_images is 5000, but digits has 1437"):
        Sweep(planned(tmp_path, 0.3, data__train_images=5000))
    with pytest.raises(InputError, match=r"train\.ema 0\.5 cannot be trained as batched replicas"):
        Sweep(planned(tmp_path, 0.3, train__ema=0.5), replicas=2)
    monkeypatch.setenv("EQUIBIT_DATA", str(tmp_path))
    with pytest.raises(FileError):
        Sweep(sweep.jobs([("mnist-lenet5-float", {}, 0)], tmp_path))
    (job,) = planned(tmp_path, 0.3)
    job.out.mkdir()
    (job.out / "config.yaml").write_text(recipes.load(RECIPE).to_yaml())
    with pytest.raises(InputError, match=r"with another recipe .*data\.batch_size: 64 there, 32 now"):
        Sweep([job])
    assert not list(tmp_path.glob("*/state.safetensors"))


# --- training -------------------------------------------------------------------------------------------

FAKE = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
if "ratio=0.4" in out.name:
    sys.exit("no luck")
out.mkdir()
rows = [{"test_accuracy": accuracy} for accuracy in (0.9, 0.5 + 0.1 * int(out.name[-1]))]
(out / "metrics.jsonl").write_text("".join(json.dumps(row) + chr(10) for row in rows))
"""


def test_a_sweep(tmp_path, monkeypatch):
    """Two seeds of three ratios, of which one fails; who follows sees how far it is."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(run_list, "_COMMAND", (sys.executable, str(tmp_path / "fake.py")))
    jobs = planned(tmp_path, 0.3, 0.4, 0.5, seeds=(0, 1), train__epochs=2)
    seen = []
    outcomes = Sweep(jobs, parallel=2).run(lambda job, state, progress: seen.append((job, state, progress)))
    assert [o.state for o in outcomes] == ["finished", "finished", "failed", "failed", "finished", "finished"]
    assert "no luck" in jobs[2].log.read_text()
    last = seen[-1][2]
    assert (last.runs, last.all_runs, last.epochs, last.all_epochs, last.seconds_left) == (6, 6, 12, 12, 0)
    left = [progress.seconds_left for _, _, progress in seen]
    assert left[0] is None
    assert all(0 < seconds < 1000 for seconds in left if seconds)
    assert [state for job, state, _ in seen if job is jobs[2]] == ["training", "failed"]
    first, failed, third = sweep.cells(jobs, outcomes)
    assert first.values == {**SMALL, "train.epochs": 2, "method.ratio": 0.3}
    assert (first.runs, first.finished, failed.finished) == (2, 2, 0)
    assert first.final == Spread(2, pytest.approx(0.55), pytest.approx(0.1 / 2**0.5), 0.5, 0.6)
    assert third.best == Spread(2, 0.9, 0.0, 0.9, 0.9)
    assert (failed.final, failed.best) == (None, None)


def arguments(out, *more):
    small = [word for key, value in SMALL.items() for word in (f"--{key}", json.dumps(value))]
    return ["sweep", RECIPE, *small, "--over", "method.ratio=0.4,...,0.6", "--repeat", "2", "--out", str(out), *more]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A finished sweep: three ratios, two seeds, four replicas at once and then two."""
    out = tmp_path_factory.mktemp("sweep")
    assert main(arguments(out, "--replicas", "4")) == 0
    return out


def test_the_runs_of_a_sweep_are_ordinary_runs(swept, capsys):
    assert main(arguments(swept, "--json")) == 0  # nothing is left, so nothing is trained, in whatever way
    found = json.loads(capsys.readouterr().out)
    assert len(found["runs"]) == 6
    for run in found["runs"]:
        assert run["state"] == "finished"
        assert main(["summary", run["out"], "--json"]) == 0
        summary = json.loads(capsys.readouterr().out)
        assert summary["binary_parameters"] > 0
        written = json.loads((swept / run["out"] / "summary.json").read_text())
        assert (written["final_accuracy"], written["seed"]) == (run["accuracy"], run["seed"])
        assert recipes.load(f"{run['out']}/config.yaml").method["ratio"] == run["values"]["method.ratio"]
    assert [cell["values"]["method.ratio"] for cell in found["cells"]] == [0.4, 0.5, 0.6]
    assert all(cell["runs"] == cell["finished"] == 2 for cell in found["cells"])


def test_a_sweep_goes_on(swept, capsys):
    """A run that has lost its last epoch is trained again, and no other; first seeds follow the recipe's."""
    lost = swept / next(p.name for p in swept.iterdir() if "ratio=0.5" in p.name and p.name.endswith(".s1"))
    before = {p: p.stat().st_mtime_ns for p in swept.glob("*/state.safetensors")}
    for name in ("state.safetensors", "metrics.jsonl", "summary.json"):
        (lost / name).unlink()
    assert main(arguments(swept, "--replicas", "4")) == 0
    printed = capsys.readouterr()
    changed = [p for p, time in before.items() if p.stat().st_mtime_ns != time]
    assert [p.parent for p in changed] == [lost]
    lines = printed.err.splitlines()
    assert sum(": training" in line for line in lines) == 1
    assert "6 of 6 runs, 6 of 6 epochs, 0:00:00 left" in lines[-1]
    table = printed.out.splitlines()
    assert table[0].split() == ["ratio", "runs", "final", "mean", "range", "best", "mean", "range"]
    assert [line.split()[:2] for line in table[2:]] == [["0.4", "2/2"], ["0.5", "2/2"], ["0.6", "2/2"]]


def test_seeds_follow_the_recipes(tmp_path, monkeypatch, capsys):
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(run_list, "_COMMAND", (sys.executable, str(tmp_path / "fake.py")))
    words = ["sweep", RECIPE, "--train.seed", "5", "--repeat", "2", "--over", "method.ratio=0.3,0.4", "--json"]
    assert main([*words, "--jobs", "2", "--out", str(tmp_path)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(run["seed"], run["state"]) for run in found["runs"]] == [
        (5, "finished"), (6, "finished"), (5, "failed"), (6, "failed")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--over", "method.ratio"], "KEY=A,B,C"),
        (["--over", "method.ratoi=0.1"], "Did you mean 'ratio'"),
        (["--repeat", "0"], "repeat is 0"),
        (["--jobs", "0"], "jobs"),
        (["--replicas", "2", "--jobs", "2"], "replicas is 2 and jobs 2"),
        (["--train.epoch", "1"], "train.epochs"),
    ],
)
def test_wrong_words(words, message, tmp_path, capsys):
    assert main(["sweep", RECIPE, "--out", str(tmp_path / "runs"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_without_ray(tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "equibit.integrations.ray_tune", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(arguments(tmp_path, "--ray", "auto")) == 2
    assert "pip install 'equibit[ray]'" in capsys.readouterr().err


def test_a_cluster_takes_the_place_of_both(tmp_path):
    with pytest.raises(InputError, match="none for a cluster"):
        Sweep(planned(tmp_path, 0.3), parallel=2, start=run_list.Window)


def test_on_a_terminal_a_bar_says_what_is_left(swept, monkeypatch, capsys):
    terminal = Console(force_terminal=True, stderr=True, width=200)
    monkeypatch.setattr(cli.sweep, "Console", lambda **_: terminal)
    assert main(arguments(swept)) == 0
    shown = capsys.readouterr().err
    assert RECIPE in shown
    assert "6 of 6 runs, 6 of 6 epochs" in shown


def test_a_killed_sweep_keeps_its_epochs(tmp_path, monkeypatch, capsys):
    """Ctrl-C while replicas train: exit code 130, a report of what is left, and the same command goes on."""
    real = sweep.train_together

    def interrupted(given, folders, on_epoch):
        def stop(run, row):
            raise KeyboardInterrupt

        return real(given, folders, stop)

    monkeypatch.setattr(sweep, "train_together", interrupted)
    assert main(arguments(tmp_path, "--replicas", "6")) == 130
    printed = capsys.readouterr()
    assert "6 of 6 runs are left; the same command goes on with them." in printed.out
    assert (
        printed.err.splitlines()[-1] == "equibit: interrupted; every finished epoch is kept; the same command goes on"
    )
    assert len(list(tmp_path.glob("*/state.safetensors"))) == 1
    monkeypatch.setattr(sweep, "train_together", real)
    assert main(arguments(tmp_path, "--replicas", "6")) == 0


def test_whatever_breaks_a_group_the_next_one_trains(tmp_path, monkeypatch, capsys):
    real = sweep.train_together

    def out_of_memory_once(given, folders, on_epoch):
        if given[0].method["ratio"] == 0.4:
            raise RuntimeError("out of memory")
        return real(given, folders, on_epoch)

    monkeypatch.setattr(sweep, "train_together", out_of_memory_once)
    assert main(arguments(tmp_path, "--replicas", "2")) == 1
    out = capsys.readouterr().out
    assert out.count("failed; see") == 2
    assert "RuntimeError: out of memory" in next(tmp_path.glob("*ratio=0.4*.log")).read_text()
    assert len(list(tmp_path.glob("*/summary.json"))) == 4
