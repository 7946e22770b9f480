"""The command line, run in this process: every verb, and each one tried wrong on purpose."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equibit import data, models, recipes
from equibit.cli import main
from equibit.cli.verbs import VERBS

RECIPE = "digits-digits_net-bi_half-1w32a"
SUMMARY_KEYS = {
    "recipe", "method", "final_accuracy", "best_accuracy", "best_epoch", "test_n", "epochs", "seed", "seconds",
    "parameters", "binary_parameters", "packed_bytes", "hardware", "versions", "commit",
}  # fmt: skip
JSON_KEYS = {  # the contract's table of verbs; RUN, FILE, IMAGE and LIST stand for what the fixtures made
    "train": (f"train {RECIPE} --out RUN --train.epochs 2 --method.ratio=0.25 --resume", SUMMARY_KEYS),
    "eval": ("eval FILE", {"accuracy", "n", "loss", "dataset"}),
    "summary": (
        "summary RUN",
        {"layers", "parameters", "binary_parameters", "float_bytes", "packed_bytes", "onnx_bytes", "macs_float",
         "macs_binary"},
    ),
    "analyze": ("analyze RUN", {"layers", "epochs"}),
    "figure": ("figure 6 --out RUNS", {"full_combinations", "full_unique", "half_combinations", "half_unique"}),
    "report": ("report RUN --out HTML", {"file", "bytes", "accuracy", "loss", "n", "dataset", "onnx_bytes",
                                         "confusion"}),
    "results": ("results --from RESULTS --out PAGE", {"papers", "comparisons", "figures", "others", "unfinished",
                                                      "benchmarks"}),
    "export": ("export RUN -o FILE", {"bytes"}),
    "verify": ("verify RUN FILE", {"ok", "agreement", "max_abs_error", "n"}),
    "bench": ("bench FILE --rounds 1", {"cpu", "kernel", "threads", "batch", "results"}),
    "predict": ("predict FILE IMAGE", [{"file", "label", "probability", "top"}]),
    "run-list": ("run-list LIST --minutes 1 --out RUNS", {"runs"}),
    "sweep": (f"sweep {RECIPE} --over method.ratio=0.25 --train.epochs 2 --out RUNS", {"runs"}),
    "methods": ("methods", [{"name", "arguments", "about"}]),
    "models": ("models", [{"name", "options", "about"}]),
    "recipes": ("recipes", [{"name", "data", "model", "method", "epochs"}]),
    "data": ("data list", [{"name", "state", "about"}]),
    "version": ("version", {"equibit", "kernel", "kernels", "cpu", "python", "torch", "onnxruntime"}),
}  # fmt: skip
WITHOUT_JSON = {"demo": "writes demo.json", "completion": "prints a script"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", RECIPE, "--out", str(folder), "--train.epochs", "2", "--method.ratio=0.25"]) == 0
    return folder


@pytest.fixture(scope="module")
def file(run):
    path = run.parent / "digits.onnx"
    assert main(["export", str(run), "-o", str(path)]) == 0
    return path


@pytest.fixture
def call(capsys):
    """Runs a command that must succeed and returns what it printed; with --json, the parsed data."""

    def invoke(*words):
        assert main([str(word) for word in words]) == 0
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in words else out

    return invoke


def test_every_verb_is_tested():
    assert sorted(VERBS) == sorted([*JSON_KEYS, *WITHOUT_JSON])
    assert len(VERBS) >= 16


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert VERBS[verb].load().description.split()[0] in printed
    assert ("--json" in printed) == (verb in JSON_KEYS)


@pytest.fixture(scope="module")
def places(run, file, tmp_path_factory):
    """What the words in capitals of JSON_KEYS stand for."""
    folder = tmp_path_factory.mktemp("places")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "0.png")
    (folder / "list.yaml").write_text(f"- {{recipe: {RECIPE}, out: {run}, train.epochs: 2, method.ratio: 0.25}}\n")
    return {
        "RUN": run,
        "FILE": file,
        "IMAGE": folder / "0.png",
        "LIST": folder / "list.yaml",
        "RUNS": folder,
        "RESULTS": run.parent,
        "PAGE": folder / "RESULTS.md",
        "HTML": folder / "report.html",
    }


@pytest.mark.parametrize("verb", JSON_KEYS)
def test_json_has_the_keys_of_the_contract(verb, places, call):
    command, keys = JSON_KEYS[verb]
    found = call(*(places.get(word, word) for word in command.split()), "--json")
    if isinstance(keys, list):
        (keys,) = keys
        assert found
        assert all(set(item) == keys for item in found)
    else:
        assert set(found) >= keys


def test_train_writes_what_it_was_told(run, call):
    recipe = recipes.load(run / "config.yaml")
    assert (recipe.train.epochs, recipe.method["ratio"]) == (2, 0.25)
    assert {p.name for p in run.iterdir()} >= {
        "config.yaml", "metrics.jsonl", "state.safetensors", "best.safetensors", "summary.json"
    }  # fmt: skip
    again = call("train", RECIPE, "--out", run, "--train.epochs", 2, "--method.ratio=0.25", "--resume", "--json")
    assert again == json.loads((run / "summary.json").read_text())
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["bit_ratio"] == pytest.approx(0.25, abs=0.01)  # floor and ceil of n / 4


def test_eval_of_the_run_and_of_the_file_agree(run, file, call):
    of_run, of_file = call("eval", run, "--json"), call("eval", file, "--json")
    assert set(of_run) == {"accuracy", "n", "loss", "dataset"}
    assert (of_run["n"], of_run["dataset"]) == (360, "digits")
    assert of_file["accuracy"] == of_run["accuracy"]
    assert of_file["loss"] == pytest.approx(of_run["loss"], rel=1e-4)  # float32 sums in another order
    assert "360 test images" in call("eval", file)


def test_summary_of_recipe_run_and_file(run, file, call):
    keys = {"layers", "parameters", "binary_parameters", "float_bytes", "packed_bytes", "onnx_bytes", "macs_float",
            "macs_binary", "bops", "precisions"}  # fmt: skip
    found = [call("summary", target, "--json") for target in (RECIPE, run, file)]
    assert all(set(f) == keys for f in found)
    assert len({f["macs_binary"] for f in found}) == 1
    assert len({f["binary_parameters"] for f in found}) == 1
    size = file.stat().st_size
    assert found[2]["onnx_bytes"] == size
    assert abs(found[1]["onnx_bytes"] - size) <= max(0.02 * found[1]["onnx_bytes"], 16 * 1024)
    assert "25.0" in call("summary", run)


def test_verify(run, file, call, tmp_path, capsys):
    check = call("verify", run, file, "--json")
    assert check["ok"]
    assert (check["agreement"], check["n"]) == (1.0, 360)
    assert len(check["layers"]) == 3
    damaged = bytearray(file.read_bytes())
    bits = np.frombuffer(damaged, np.uint8)
    middle = next(i for i in range(len(bits) // 2, len(bits)) if bits[i] not in (0, 255))
    damaged[middle] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(damaged)
    assert main(["verify", str(run), str(tmp_path / "damaged.onnx")]) in (1, 2)
    capsys.readouterr()


def test_predict(file, call, tmp_path):
    digits = data.load("digits")
    for i in range(3):
        Image.fromarray(digits.test_images[i, 0].numpy()).save(tmp_path / f"{i}.png")
    found = call("predict", file, *(tmp_path / f"{i}.png" for i in range(3)), "--json")
    assert [set(f) for f in found] == [{"file", "label", "probability", "top"}] * 3
    for f in found:
        assert f["top"][0] == {"label": f["label"], "probability": f["probability"]}
        assert len(f["top"]) == 5
        assert 0 < f["probability"] <= 1
    coloured = Image.new("RGB", (40, 30), "white")
    coloured.save(tmp_path / "big.jpg")
    assert "big.jpg" in call("predict", file, tmp_path / "big.jpg")


def test_listings(call):
    keys = ["adabin", "bi_half", "group_transform", "ir_net", "multi_prize", "recu", "reste", "sign", "siman"]
    assert [m["name"] for m in call("methods", "--json")] == keys
    assert [m["name"] for m in call("models", "--json")] == models.list()
    assert [r["name"] for r in call("recipes", "--json")] == recipes.list()
    assert {d["name"] for d in call("data", "list", "--json")} == set(data.names())
    (checked,) = call("data", "check", "digits", "--json")
    assert (checked["checksum_ok"], checked["images"]) == (True, 1797)
    assert "ratio=0.5" in call("methods")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sumary x", "unknown verb 'sumary'. Did you mean 'summary'?"),
        ("train", "recipe"),
        ("train digits-digits_net-flot", "Did you mean 'digits-digits_net-float'?"),
        (f"train {RECIPE} --train.epoch 3", "Did you mean --train.epochs?"),
        (f"train {RECIPE} --train.epochs x", "train.epochs"),
        (f"train {RECIPE} --train.epochs 0", "train.epochs"),
        (f"train {RECIPE} --method.ratoi 0.3", "Did you mean 'ratio'?"),
        (f"train {RECIPE} --optimizer.l 1", "--optimizer.l"),
        ("train nowhere.yaml", "nowhere.yaml"),
        ("eval nowhere", "nowhere is not a run folder"),
        ("eval nowhere.onnx", "no file at nowhere.onnx"),
        ("summary nowhere.onnx", "no file at nowhere.onnx"),
        ("export nowhere -o x.onnx", "nowhere is not a run folder"),
        ("export nowhere", "required"),
        ("verify nowhere.onnx x.onnx", "needs a run folder"),
        ("predict nowhere.onnx a.png", "no file at nowhere.onnx"),
        ("data fetch", "name the data sets"),
        ("data check imagenet", "unknown data set 'imagenet'"),
        ("data look", "look"),
        ("methods --jsn", "Did you mean --json?"),
        ("demo --epochs many", "epochs"),
    ],
)
def test_wrong_on_purpose(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("equibit: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_wrong_input_files(run, file, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "text.onnx").write_text("no model")
    for words, message in (
        (["predict", file, tmp_path / "text.png"], "no image"),
        (["predict", file, tmp_path / "none.png"], "no image at"),
        (["eval", tmp_path / "text.onnx"], "cannot load"),
        (["summary", tmp_path / "text.onnx"], "not an ONNX file"),
        (["eval", run, "--data", tmp_path, "--weights", "last"], "last"),
        (["train", RECIPE, "--out", run], "already holds a run"),
        (["train", RECIPE, "--out", run, "--resume"], "another recipe"),
        (["export", run, "-o", tmp_path / "none" / "x.onnx"], "cannot write"),
    ):
        assert main([str(word) for word in words]) == 2, words
        assert re.search(re.escape(message), capsys.readouterr().err), words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("bench nowhere.onnx", "no file at nowhere.onnx"),
        ("bench FILE --threads 0", "threads is 0"),
        ("bench FILE --batch 0", "batch is 0"),
        ("bench FILE --rounds 0", "rounds is 0"),
        ("bench LIST", "cannot load"),
        ("analyze nowhere", "nowhere is not a run folder"),
        ("analyze FILE", "needs a run folder"),
        ("analyze RUN --plot LIST", "cannot write into"),
        ("run-list LIST", "minutes"),
        ("run-list LIST --minutes 0", "minutes is 0"),
        ("run-list LIST --minutes 1 --jobs 0", "jobs is 0"),
        ("run-list nowhere.yaml --minutes 1", "cannot read the list nowhere.yaml"),
        ("completion csh2", "csh2"),
    ],
)
def test_wrong_input_to_the_measuring_verbs(words, message, places, capsys):
    assert main([str(places.get(word, word)) for word in words.split()]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("equibit: ")
    assert err.count("\n") == 1


def test_debug_shows_where(capsys):
    assert main(["eval", "nowhere", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_demo(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--epochs", "1"]) == 0
    printed = capsys.readouterr().out
    record = json.loads((out / "demo.json").read_text())
    assert [net["name"] for net in record["networks"]] == ["float", "sign", "bi_half"]
    assert record["test_n"] == 360
    for net in record["networks"]:
        assert net["onnx_accuracy"] == net["final_accuracy"]
        assert net["agreement"] == 1
        assert (out / net["onnx_file"]).stat().st_size == net["onnx_bytes"]
        assert abs(net["onnx_bytes"] - net["promised_onnx_bytes"]) <= 16 * 1024
        assert net["name"] in printed
    bi_half = record["networks"][-1]
    assert bi_half["ratio_lowest"] == bi_half["ratio_highest"] == 0.5
    with Image.open(out / "demo.png") as picture:
        assert picture.width > 1000
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    assert main(["demo", "--out", str(out), "--epochs", "1"]) == 0  # goes on where it was: nothing to train
    assert main(["demo", "--out", str(out), "--epochs", "2"]) == 2
    assert "--out" in capsys.readouterr().err


def test_the_readme_names_every_verb_and_its_python_runs(tmp_path, monkeypatch):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    for verb in VERBS:
        assert f"equibit {verb}" in readme or f"`{verb}`" in readme
    (snippet,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    assert (tmp_path / "model.onnx").stat().st_size < 150_000
