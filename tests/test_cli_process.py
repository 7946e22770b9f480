"""The command line as a process: start-up, signals, pipes, completion, and a window of trainings."""

import json
import signal
import subprocess
import sys
import time

import pytest
import shtab

from equibit import recipes, run_list
from equibit.cli import main
from equibit.cli.verbs import VERBS
from equibit.errors import FormatError, InputError
from equibit.run_list import Window

RECIPE = "digits-digits_net-sign-1w32a"
EQUIBIT = [sys.executable, "-m", "equibit.cli"]
LOADED = """
import sys
from equibit.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
sys.exit("torch" in sys.modules)
"""


@pytest.mark.parametrize("words", ["--version", "--help", "bench --help", "predict --help", "sumary"])
def test_what_needs_no_torch_does_not_load_it(words):
    done = subprocess.run([sys.executable, "-c", LOADED, *words.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version_says_what_a_bug_report_needs(capsys):
    assert main(["--version"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("equibit 0.1.0\n")
    for word in ("kernel ", "kernels ", "cpu ", "python ", "torch ", "onnxruntime ", "gpu "):
        assert f"\n{word}" in printed


def test_a_forced_kernel_that_is_not_there_is_one_line():
    done = subprocess.run([*EQUIBIT, "--version"], capture_output=True, text=True, env={"EQUIBIT_KERNEL": "none"})
    assert done.returncode == 2
    assert done.stderr.startswith("equibit: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_interrupted_anywhere(verb, monkeypatch, capsys):
    def interrupt(_entry):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(VERBS[verb]), "load", interrupt)
    assert main([verb]) == 130
    assert capsys.readouterr().err == f"equibit: interrupted; {VERBS[verb].interrupted}\n"


def test_a_reader_that_leaves_is_no_error():
    with subprocess.Popen([*EQUIBIT, "--version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "equibit.bash"
    path.write_text(subprocess.run([*EQUIBIT, "completion", "bash"], capture_output=True, text=True, check=True).stdout)
    return path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tr", ["train"]),
        ("e", ["eval", "export"]),
        ("bench --th", ["--threads"]),
        ("train mnist-lenet5-fl", ["mnist-lenet5-float"]),
        ("train x --data.name cifar10", ["cifar10", "cifar100"]),
        ("eval x --weights f", ["final"]),
        ("data ch", ["check"]),
    ],
)
def test_bash_completes(bash_script, typed, offered):
    words = ["equibit", *typed.split()]
    code = (
        f'source "{bash_script}"; COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; '
        f'_shtab_equibit equibit "{words[-1]}" "{words[-2]}"; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True)
    assert sorted(done.stdout.split()) == offered, done.stderr


def test_completion_is_for_the_usual_shells():
    assert {"bash", "zsh", "tcsh"} <= set(shtab.SUPPORTED_SHELLS)


@pytest.mark.parametrize("shell", shtab.SUPPORTED_SHELLS)
def test_completion_names_every_verb(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(verb in script for verb in VERBS)
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def write_list(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", FormatError, "holds no list"),
        ("{a: 1}", FormatError, "holds no list"),
        ("- [", FormatError, "not valid YAML"),
        ("- 3", InputError, "run 1: 3 is neither a recipe"),
        ("- {out: a}", InputError, "run 1"),
        (f"- {RECIPE}\n- digits-flot", InputError, "run 2: unknown recipe 'digits-flot'"),
        (f"- {{recipe: {RECIPE}, train.epoch: 3}}", InputError, "Did you mean 'epochs'"),
        (f"- {{recipe: {RECIPE}, train.epochs: 0}}", InputError, "run 1"),
        (f"- {RECIPE}\n- {{recipe: {RECIPE}, train.epochs: 3}}", InputError, "2 runs would write to"),
    ],
)
def test_wrong_lists(text, error, message, tmp_path):
    with pytest.raises(error, match=message):
        run_list.read(write_list(tmp_path / "list.yaml", text), tmp_path)


def test_a_list_is_read(tmp_path):
    own = recipes.override(recipes.load(RECIPE), {"train.epochs": 7})
    (tmp_path / "own.yaml").write_text(own.to_yaml())
    text = f"- {RECIPE}\n- {{recipe: {tmp_path}/own.yaml, out: mine, method.scale: mean_abs}}\n"
    first, second = run_list.read(write_list(tmp_path / "list.yaml", text), tmp_path / "runs")
    assert (first.recipe, first.out) == (recipes.load(RECIPE), tmp_path / "runs" / RECIPE)
    assert (second.recipe.train.epochs, second.recipe.method["scale"]) == (7, "mean_abs")
    assert (second.out, second.log) == (tmp_path / "runs" / "mine", tmp_path / "runs" / "mine.log")


FAKE = """
import json, pathlib, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(exist_ok=True)
(out / "metrics.jsonl").write_text(json.dumps({"test_accuracy": 0.5}) + chr(10))
if out.name == "broken":
    sys.exit("no luck")
while out.name.startswith("long"):
    time.sleep(0.05)
"""


@pytest.fixture
def fake_training(tmp_path, monkeypatch):
    """A program in the place of `equibit train`: `long` never ends, `broken` fails, any other name is done at once."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(run_list, "_COMMAND", (sys.executable, str(tmp_path / "fake.py")))


def jobs_named(folder, *names):
    text = "".join(f"- {{recipe: {RECIPE}, out: {name}}}\n" for name in names)
    return run_list.read(write_list(folder / "list.yaml", text), folder)


def test_a_window(tmp_path, fake_training):
    """Two at once, in the order of the list; one fails; the window ends while two train; the last never starts."""
    events = []
    jobs = jobs_named(tmp_path, "short", "long", "broken", "long2", "late")
    window = Window(jobs, parallel=2, on_change=lambda job, state: events.append((job.out.name, state)))
    window.run(5.0)  # far more than the three short processes take
    states = {job.out.name: outcome.state for job, outcome in zip(jobs, window.outcomes(), strict=True)}
    assert states == {
        "short": "finished", "long": "stopped", "broken": "failed", "long2": "stopped", "late": "not started"
    }  # fmt: skip
    assert [name for name, state in events if state == "training"] == ["short", "long", "broken", "long2"]
    assert [outcome.epochs for outcome in window.outcomes()] == [1, 1, 1, 1, 0]
    assert window.outcomes()[0].accuracy == 0.5
    assert "no luck" in jobs[2].log.read_text()
    assert "KeyboardInterrupt" in jobs[1].log.read_text()  # asked, not killed


def test_one_that_does_not_listen_is_killed(tmp_path, fake_training, monkeypatch):
    ignores = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    (tmp_path / "fake.py").write_text(ignores + FAKE)
    monkeypatch.setattr(run_list, "_GRACE", 0.5)
    window = Window(jobs_named(tmp_path, "long"))
    start = time.monotonic()
    window.run(2.0)
    assert window.outcomes()[0].state == "stopped"
    assert time.monotonic() - start < 10


def test_trainings_share_the_cores_unless_told(tmp_path, monkeypatch):
    show = "import os; print(os.environ['OMP_NUM_THREADS'])"
    monkeypatch.setattr(run_list, "_COMMAND", (sys.executable, "-c", show))
    monkeypatch.setattr(run_list.os, "cpu_count", lambda: 8)
    for setting, expected in ((None, "4"), ("3", "3")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if setting:
            monkeypatch.setenv("OMP_NUM_THREADS", setting)
        (job,) = jobs_named(tmp_path, f"threads{setting}")
        Window([job], parallel=2).run(30.0)
        assert job.log.read_text().strip() == expected


def test_a_failure_is_the_exit_code(tmp_path, fake_training, capsys):
    jobs_named(tmp_path, "short", "broken")
    words = ["run-list", tmp_path / "list.yaml", "--minutes", "1", "--out", tmp_path, "--json"]
    assert main([str(word) for word in words]) == 1
    printed = capsys.readouterr()
    runs = json.loads(printed.out)["runs"]
    assert [run["state"] for run in runs] == ["finished", "failed"]
    keys = {"recipe", "out", "state", "epochs", "accuracy", "best_accuracy", "seconds", "log"}
    assert all(set(run) == keys for run in runs)
    assert printed.err.splitlines() == ["short: training", "short: finished", "broken: training", "broken: failed"]


def test_interrupted_in_a_window(tmp_path):
    """The real thing: Ctrl-C reaches the training, which keeps its epochs; the report is printed; 130."""
    text = f"- {{recipe: {RECIPE}, out: long, train.epochs: 100000}}\n- {{recipe: {RECIPE}, train.epochs: 1}}"
    words = ["run-list", str(write_list(tmp_path / "list.yaml", text)), "--minutes", "9", "--out", str(tmp_path)]
    with subprocess.Popen([*EQUIBIT, *words, "--json"], stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (tmp_path / "long" / "state.safetensors").exists():
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        long, late = json.loads(process.stdout.read())["runs"]
    assert process.returncode == 130
    assert (long["state"], late["state"]) == ("stopped", "not started")
    assert long["epochs"] >= 1
    *epochs, last = (tmp_path / "long.log").read_text().splitlines()
    assert last == f"equibit: interrupted; {VERBS['train'].interrupted}"
    assert epochs
    assert all("epoch" in line for line in epochs)
