"""`equibit report`: the page is whole, right and self-contained, and a browser shows it."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import equibit as eb
from equibit import data, recipes, training
from equibit.cli import main
from equibit.data import TensorSplit
from equibit.report import charts, images, inline
from equibit.report.confusion import most_confused, predict

VOID = {"meta", "link", "img", "br", "hr", "input"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """A page's tags, ids and text; every tag must be closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.ids, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def train(folder, recipe, **changes):
    recipe = recipes.override(recipes.load(recipe), {"train.epochs": 2, **changes})
    training.train(recipe, folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("report") / "run", "digits-digits_net-sign-1w32a")


@pytest.fixture(scope="module")
def text(run):
    assert main(["report", str(run)]) == 0
    return (run / "report.html").read_text(encoding="utf-8")


def test_the_page_is_whole(text):
    page = Page(text)
    words = "".join(page.texts)
    for heading in ("Training", "Bits", "What it confuses", "Size and speed", "How it was made"):
        assert heading in words
    titles = [svg["aria-label"].split(".")[0] for svg in page.all("svg")]
    assert titles == [
        "Loss", "Accuracy", "Learning rate", "Share of +1", "Flips", "Entropy", "Latent weights", "Confusion matrix",
    ]  # fmt: skip
    assert len(page.all("table")) == 4
    assert len(page.all("th")) > 40
    assert all("scope" in cell for cell in page.all("th"))
    assert all(image["alt"] for image in page.all("img"))
    assert page.all("html") == [{"lang": "en"}]


def test_the_page_loads_nothing(text):
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "embed", "base")]
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/png;base64,")), (tag, name, value)
    assert not re.findall(r"url\((?!#)|@import", text)


def test_ids_are_unique_and_references_lead_somewhere(text):
    page = Page(text)
    assert len(page.ids) == len(set(page.ids)) > 5
    used = re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", text)
    assert len(used) > 10
    assert {first or second for first, second in used} <= set(page.ids)


def test_the_numbers_are_those_of_the_run(run, text, tmp_path, capsys):
    assert main(["eval", str(run), "--json"]) == 0
    score = json.loads(capsys.readouterr().out)
    assert f"{100 * score['accuracy']:.2f} %" in text
    assert f"loss {score['loss']:.4f}" in text
    again = tmp_path / "again.html"
    assert main(["report", str(run), "--json", "--out", str(again)]) == 0
    assert again.read_text(encoding="utf-8") == text  # written again it is the same
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["accuracy"]) == (360, score["accuracy"])
    matrix = np.array(found["confusion"])
    assert (matrix.shape, matrix.sum()) == ((10, 10), 360)
    assert np.trace(matrix) / 360 == pytest.approx(score["accuracy"])
    assert f"{found['onnx_bytes']:,}" in text
    assert (found["file"], found["bytes"]) == (str(again), again.stat().st_size)


def test_names_are_escaped_and_old_runs_are_shown(run, text, tmp_path):
    """A run from before layers.jsonl, and unfinished, whose name is HTML."""
    old = tmp_path / "old"
    shutil.copytree(run, old)
    for name in ("layers.jsonl", "summary.json"):
        (old / name).unlink(missing_ok=True)
    config = (old / "config.yaml").read_text()
    (old / "config.yaml").write_text(config.replace("digits-digits_net-sign-1w32a", "'<b>&amp;'"))
    assert main(["report", str(old)]) == 0
    page = (old / "report.html").read_text(encoding="utf-8")
    assert "<h1>&lt;b&gt;&amp;amp;</h1>" in page
    assert "This run is not finished." in page
    assert [svg["aria-label"].split(".")[0] for svg in Page(page).all("svg")].count("Flips") == 1


def test_a_float_run_has_no_bits(tmp_path):
    run = train(tmp_path / "float", "digits-digits_net-float", **{"train.epochs": 1})
    assert main(["report", str(run), "--weights", "best"]) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "This run has float weights" in text
    assert len(Page(text).all("svg")) == 4
    assert "best weights" in text


@pytest.mark.slow
def test_bench_adds_the_speed(run, tmp_path, monkeypatch):
    from equibit.cli import report

    monkeypatch.setattr(report, "_ROUNDS", 1)
    assert main(["report", str(run), "--bench", "--out", str(tmp_path / "x.html")]) == 0
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert len(Page(text).all("table")) == 5
    assert "kernel level" in text


def test_wrong_on_purpose(run, tmp_path, capsys):
    for words, message in (
        (["report", "nowhere"], "nowhere is not a run folder"),
        (["report", "file.onnx"], "needs a run folder"),
        (["report", str(run), "--out", str(tmp_path / "none" / "x.html")], "cannot write"),
        (["report", str(run), "--weights", "last"], "last"),
    ):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def split_of(labels):
    """Images whose first pixel is what `reader` says and whose second is how surely."""
    pixels = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    return TensorSplit(pixels, torch.tensor(labels))


class Reader(nn.Module):
    """Answers what it is told for each image in turn."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.seen = torch.tensor(logits), 0

    def forward(self, x):
        self.seen += len(x)
        return self.logits[self.seen - len(x) : self.seen]


def test_confusions_by_hand():
    labels = [0, 0, 1, 1, 1, 2]
    logits = [[5.0, 0, 0], [0, 1, 0], [0, 5, 0], [3, 0, 0], [9, 0, 0], [0, 2, 0]]
    found = predict(Reader(logits), split_of(labels), (0.0,), (1.0,))
    assert found.matrix.tolist() == [[1, 1, 0], [2, 1, 0], [0, 1, 0]]
    assert found.accuracy == pytest.approx(2 / 6)
    first, second, third = most_confused(found, pairs=9, examples=1)
    assert (first.true, first.predicted, first.count, first.examples) == (1, 0, 2, (4,))  # the surer one
    assert (second.true, second.predicted, third.true, third.predicted) == (0, 1, 2, 1)
    assert most_confused(found, pairs=1, examples=0)[0].examples == ()


def decode(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))


def test_filters_as_pictures():
    weights = np.ones((2, 3, 3, 3), np.int8)
    weights[1, 2, 0, 0] = -1
    weights[0, 0, 2, 2] = 0
    pixels = decode(images.mosaic(weights))[::4, ::4]
    assert pixels.shape == (7, 11)
    assert (pixels[0, 0], pixels[4, 8], pixels[2, 2]) == (255, 0, 127)
    assert (pixels[3] == 127).all()
    assert (pixels[:, 3] == 127).all()
    assert images.shown(np.zeros((64, 3, 3, 3), np.int8)) == (16, 3)


def test_images_are_exact_and_large_ones_are_made_smaller():
    coloured = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    assert (decode(images.photograph(coloured)) == coloured.permute(1, 2, 0).numpy()).all()
    assert decode(images.photograph(coloured[:1])).shape == (5, 7)
    assert decode(images.photograph(torch.zeros(3, 192, 384, dtype=torch.uint8))).shape == (48, 96, 3)


def test_charts_take_the_colours_of_the_page():
    (chart, *_) = charts.training([{"epoch": 1, "lr": 0.1, **{f"{p}_{k}": 0.5 for p in ("train", "test")
                                                             for k in ("loss", "accuracy")}}])  # fmt: skip
    assert "var(--blue)" in chart.svg
    assert "currentColor" in chart.svg
    assert not {inline.INK, inline.FAINT} & set(re.findall(r"#[0-9a-f]{6}", chart.svg))
    assert "<text" in chart.svg  # not outlines


def test_many_classes_are_shades_without_numbers():
    matrix = np.eye(100, dtype=np.int64)
    chart = charts.confusion(matrix, [f"class {i}" for i in range(100)])
    assert "data:image/png;base64," in chart.svg
    assert "class 7" not in chart.svg


def test_filters_of_the_first_convolution():
    from equibit.report.facts import _first_filters

    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 2))
    eb.binarize_(model, eb.BiHalf())
    found = _first_filters(model)
    assert found.layer == "1"
    assert found.weights.shape == (8, 4, 3, 3)
    assert set(np.unique(found.weights)) == {-1, 1}
    assert _first_filters(nn.Linear(2, 2)) is None


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome")
def test_a_browser_shows_it(run, text, tmp_path):
    for width in (1200, 500):
        picture = tmp_path / f"{width}.png"
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},1600")
        places = (f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}", f"file://{run}/report.html")
        subprocess.run([CHROMIUM, *options, *places], check=True, capture_output=True, timeout=120)
        with Image.open(picture) as shown:
            assert shown.size == (width, 1600)
            pixels = np.asarray(shown.convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
        drawn = (pixels != pixels[0, 0]).any(axis=2)
        assert drawn.mean() > 0.1
        assert not drawn[:, -8:].any()  # nothing runs over the right edge


def test_data_of_the_run_is_scored(run):
    """The whole test set, and as `evaluate` does."""
    loaded = training.load_run(run)
    digits = data.load("digits")
    pixels = loaded.recipe.data
    found = predict(loaded.model, digits.test, pixels.mean, pixels.std)
    score = training.evaluate(loaded.model, digits.test, pixels.mean, pixels.std)
    assert len(found.labels) == score.n == 360
    assert found.accuracy == score.accuracy
    assert found.loss == pytest.approx(score.loss, rel=1e-5)
