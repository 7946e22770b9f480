"""RESULTS.md: the published numbers, the grouping of runs, and that the page is what the records say."""

import json
import re
from pathlib import Path

import pytest

from equibit import recipes, results
from equibit.cli import main
from equibit.errors import FileError, FormatError
from equibit.figures import runs
from equibit.results import benchmarks, pictures, published, speed
from equibit.results.groups import alike, group
from equibit.spread import Spread

ROOT = Path(__file__).parents[1]
RECIPE = "digits-digits_net-sign-1w32a"


def write_run(folder, accuracies, recipe=RECIPE, finished=True, **changes):
    """A run folder as a training leaves it, without its weights."""
    folder.mkdir(parents=True)
    full = recipes.override(recipes.load(recipe), {"train.epochs": len(accuracies), **changes})
    (folder / "config.yaml").write_text(full.to_yaml())
    rows = [
        {"epoch": i + 1, "test_accuracy": a, "test_n": 360, "bit_ratio": 0.5, "bit_entropy": 1.0, "flip_rate": 0.01}
        for i, a in enumerate(accuracies)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        machine = {"cpu": "A CPU", "device": "cpu", "kernel": "portable"}
        summary = {"hardware": machine, "versions": {"torch": "2.8.0"}, "commit": "0123456789-dirty"}
        (folder / "summary.json").write_text(json.dumps(summary))


def all_rows():
    return [row for paper in published.papers() for table in paper.tables for row in table.rows]


def test_every_published_row_names_a_shipped_recipe_or_says_why_there_is_none():
    shipped, rows = set(recipes.list()), all_rows()
    assert len(published.papers()) == 11
    assert len(rows) == 230
    named = [row for row in rows if row.recipe]
    assert len(named) == 197
    assert {row.recipe for row in named} <= shipped
    assert all(not row.recipe.endswith("-short") for row in named)
    assert all(row.note for row in rows if not row.recipe)


def test_published_numbers_are_percent_with_known_evidence():
    numbers = [(row, value) for row in all_rows() for value in (row.top1, row.top5, row.spread) if value is not None]
    assert len(numbers) >= 120
    for row, value in numbers:
        assert re.fullmatch(r"\d{1,2}\.\d{1,2}", value), row  # as printed, and never a float that YAML has rounded
    assert {row.evidence for row in all_rows()} == set(published.evidence())
    assert all(row.evidence == "U" for row in all_rows() if row.top1 is None)


def test_what_a_row_prints():
    assert published.Row("x", "R", top1="60.1", top5="82.3").printed == "60.1 / 82.3"
    assert published.Row("x", "U", top1="60.40").printed == "60.40 (unverified)"
    assert published.Row("x", "T", top1="80.0", spread="0.26").printed == "80.0 ± 0.26"
    assert published.Row("x", "U").printed == "unverified"


def test_every_full_recipe_of_a_method_is_in_a_table_or_a_comparison():
    shown = {row.recipe for row in all_rows()} | {name for c in published.comparisons() for name in c.recipes}
    full = {name for name in recipes.list() if not name.endswith("-short") and "-float" not in name}
    assert len(full) >= 198
    assert full <= shown


def test_comparisons_differ_in_the_method_only():
    assert len(published.comparisons()) == 5
    for comparison in published.comparisons():
        rows = [row for row in recipes.overview() if row["name"] in comparison.recipes]
        assert len(rows) == len(comparison.recipes) >= 3
        assert len({(row["data"], row["model"], row["epochs"]) for row in rows}) == 1, comparison.key
        assert len({row["method"] for row in rows}) == len(rows), comparison.key


def test_spread():
    found = Spread.of([0.25, 0.75, 0.5])
    assert (found.n, found.mean, found.std, found.min, found.max) == (3, 0.5, 0.25, 0.25, 0.75)
    assert Spread.of([0.5]).std is None


def test_runs_are_grouped_by_recipe_length_and_changes(tmp_path):
    write_run(tmp_path / "a", [0.5, 0.9], **{"train.seed": 1})
    write_run(tmp_path / "b", [0.8, 0.7])
    write_run(tmp_path / "copies" / "b", [0.8, 0.7])
    write_run(tmp_path / "longer", [0.1, 0.2, 0.3])
    write_run(tmp_path / "other", [0.1, 0.2], **{"optimizer.weight_decay": 0.5, "train.device": "cpu"})
    write_run(tmp_path / "unfinished", [0.1, 0.2], finished=False)
    longer, two, other = group(runs.find([tmp_path]))
    assert (longer.epochs, two.epochs, other.epochs) == (3, 2, 2)
    assert (longer.changes, two.changes, other.changes) == ({}, {}, {"optimizer.weight_decay": 0.5})
    assert [run.seed for run in two.runs] == [0, 1]  # the copy counts once
    assert (two.final.mean, two.best.mean) == pytest.approx((0.8, 0.85))
    assert (two.method, two.test_n, two.commits) == ("sign", (360,), ("0123456-dirty",))
    assert results.collect(tmp_path).unfinished == ("unfinished",)


def test_a_run_of_an_older_version_is_of_the_group_of_a_new_one(tmp_path):
    write_run(tmp_path / "new", [0.5])
    write_run(tmp_path / "old", [0.5], **{"train.seed": 1})
    config = (tmp_path / "old" / "config.yaml").read_text()
    older = re.sub(r"^activation: null\n", "", config, flags=re.MULTILINE)
    assert older != config
    (tmp_path / "old" / "config.yaml").write_text(older)
    (found,) = group(runs.find([tmp_path]))
    assert len(found.runs) == 2


def test_a_recipe_of_the_users_is_shown_as_it_is(tmp_path):
    write_run(tmp_path / "a", [0.5])
    config = (tmp_path / "a" / "config.yaml").read_text().replace(f"name: {RECIPE}", "name: mine")
    (tmp_path / "a" / "config.yaml").write_text(config)
    found = results.collect(tmp_path)
    assert [(g.recipe, g.changes) for g in found.others] == [("mine", {})]
    assert "`mine`" in results.render(found, tmp_path, tmp_path)


def test_the_page_says_what_was_run_and_what_was_not(tmp_path):
    write_run(tmp_path / "a", [0.8642], recipe="cifar10-resnet20-ir_net-1w32a-short")
    write_run(tmp_path / "b", [0.8842], recipe="cifar10-resnet20-ir_net-1w32a-short", **{"train.seed": 1})
    text = results.render(results.collect(tmp_path), tmp_path, tmp_path.parent)
    (row,) = re.findall(r"^\| ResNet-20, 1/32 \| 90\.8 .*", text, re.MULTILINE)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    ours = "87.42 ± 1.41 (86.42 to 88.42)"
    name = "`cifar10-resnet20-ir_net-1w32a-short`"
    assert cells == ["ResNet-20, 1/32", "90.8", "R", ours, ours, "2", "1 of 400", "360", name]
    assert "| ResNet-18, 1/1 | 91.5 | R | not run | - | 0 | 0 of 400 |" in text
    assert "| Conv-4, bi-half | unverified | U | not run |" in text
    assert "| IR-Net](#ir-net) | 27 | 0 | 1 | 26 |" in text.replace("[", "")
    tables = [line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("|")]
    assert min(tables) > 4
    assert text == results.render(results.collect(tmp_path), tmp_path, tmp_path.parent)


def test_timings_are_known_by_their_keys(tmp_path):
    machine = {"cpu": "A CPU", "kernel": "avx2"}
    engine = {"engine": "equibit", "median_ms": 1.25}
    (tmp_path / "bench.json").write_text(
        json.dumps({**machine, "threads": 1, "batch": 8, "file": "m.onnx", "results": [engine]})
    )
    (tmp_path / "new_kind.json").write_text(json.dumps({"hardware": machine, "anything": 1}))
    (tmp_path / "table.json").write_text("[1]")
    bench, new = benchmarks.find(tmp_path)
    assert (bench.what, bench.cpu, bench.kernel, bench.found) == (
        "m.onnx, batch 8",
        "A CPU",
        "avx2",
        "equibit: 1.25 ms",
    )
    assert (new.what, new.threads, new.found) == ("new kind", "-", "see the record")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(FormatError, match=r"broken\.json is damaged"):
        benchmarks.find(tmp_path)


NETWORK = {
    "cpu": "A CPU", "kernel": "avx2", "threads": 1, "batch": 1, "network": "net", "file": "a temporary file",
    "results": [
        {"engine": "equibit", "median_ms": 2.0, "p10_ms": 1.0, "p90_ms": 4.0, "peak_rss_mb": 60.2, "file_bytes": 10},
        {"engine": "onnxruntime-float", "median_ms": 8.0, "p10_ms": 7.0, "p90_ms": 9.0, "peak_rss_mb": 200.0},
    ],
}  # fmt: skip
RATE = {"macs_per_cycle": 80.0}
LAYERS = {
    "cpu": "A CPU", "levels": ["avx2"], "threads": 2,
    "networks": {"net": {"totals": [{"input": "sign", "level": "avx2", "ms": 1.5, "macs_per_cycle": 75.2}]}},
    "layers": [
        {"layer": "64-64 3x3/1 8x8", "results": [
            {"input": "sign", "level": "avx2", "in_turn": RATE, "again": {"macs_per_cycle": 96.0}, "ceiling": 186}
        ]}
    ],
}  # fmt: skip
LINEAR = {
    "cpu": "A CPU", "kernel": "avx2", "threads": 1, "memory": {"in_turn": {"gigabytes_per_second": 20.0}},
    "linear": [{"size": 64, "results": [
        {"way": "equibit 1w1a", "in_turn": {"median_ms": 0.1, "gigabytes_per_second": 5.12}},
        {"way": "torch", "in_turn": {"median_ms": 2.0, "gigabytes_per_second": 8.19}},
    ]}],
}  # fmt: skip
PREDICTIONS = {
    "cpu": "A CPU", "kernel": "avx2", "threads": 1,
    "predictions": [
        {"run": "r", "n": 9977, "equibit": {"different_predictions": 0}, "onnxruntime": {"different_predictions": 2}},
        {
            "run": "s",
            "n": 9977,
            "equibit": {"different_predictions": 108},
            "equibit_beside_exact_sums": {"different_predictions": 1},
            "onnxruntime": {"different_predictions": 107},
        },
    ],
}  # fmt: skip
BINARY = {
    "cpu": "A CPU", "kernel": "avx2", "threads": 1, "openvino": "1",
    "layers": [{"channels": 64, "side": 32, "equibit": {"median_ms": 0.1}, "speed": 2.5}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("record", "what", "found"),
    [
        (NETWORK, "net, batch 1", "equibit: 2 ms; onnxruntime-float: 8 ms"),
        (NETWORK | {"isa": "avx2"}, "net, batch 1, engines limited to avx2", "equibit: 2 ms; onnxruntime-float: 8 ms"),
        (NETWORK | {"busy": 1}, "net, batch 1, a core busy", "equibit: 2 ms; onnxruntime-float: 8 ms"),
        (LAYERS, "binary layers, batch 1, all of each network", "net, sign, avx2: 1.5 ms, 75 MAC a cycle"),
        (
            LINEAR,
            "square linear layers on one input",
            "64, equibit 1w1a: 0.1 ms, 5.1 GB/s, 20.0 times as fast as torch; 64, torch: 2 ms, 8.2 GB/s; "
            "memory: 20.0 GB/s",
        ),
        (
            PREDICTIONS,
            "predictions that differ from torch's: our operators, stock onnxruntime",
            "r: 0 and 2 of 9,977; s: 108 and 107 of 9,977 (ours from torch with exact sums: 1)",
        ),
        (
            BINARY,
            "1W1A 3x3 convolutions beside OpenVINO's BinaryConvolution",
            "64 channels, 32x32: 0.1 ms (2.50 times as fast)",
        ),
    ],
)
def test_records_of_speed(record, what, found, tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(record))
    (described,) = benchmarks.find(tmp_path)
    assert (described.what, described.found, described.kernel) == (what, found, "avx2")


def test_speed_of_inference_is_a_table_and_two_pictures(tmp_path):
    (tmp_path / "net.1.json").write_text(json.dumps(NETWORK))
    (tmp_path / "layers.json").write_text(json.dumps(LAYERS))
    text = results.render(results.collect(tmp_path), tmp_path, tmp_path)
    assert "| net, 1 thread, avx2 | 2 (1 to 4) | 8 (4.00x) | 60 MB, - | -, - | 0.00 MB | [net.1.json]" in text
    assert "| layer | sign |\n|---|---|\n| 64-64 3x3/1 8x8 | 80 (96) |\n| ceiling of the tile | 186 |\n" in text
    drawn = results.draw(tmp_path)
    assert [path.name for path in drawn[-2:]] == ["speed_networks.png", "speed_layers.png"]
    before = [path.read_bytes() for path in drawn[-2:]]
    assert [path.read_bytes() for path in results.draw(tmp_path)[-2:]] == before
    assert speed.networks(tmp_path)[0].speed(speed.FLOAT) == (4.0, 2.0, 8.0)


def test_results_md_is_what_the_records_say():
    """After a change below results/, run `equibit results`."""
    records = ROOT / "results"
    found = results.collect(records)
    assert len(found.groups) >= 8
    assert len(found.benchmarks) >= 10
    assert (ROOT / "RESULTS.md").read_text(encoding="utf-8") == results.render(found, records, ROOT)


def test_links_of_results_md_lead_somewhere():
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert len(links) >= 20
    assert all((ROOT / link).exists() for link in links)


def test_the_verb_draws_and_writes(tmp_path, capsys):
    for seed in (0, 1):
        write_run(tmp_path / "runs" / str(seed), [0.5, 0.6], **{"train.seed": seed})
    page = tmp_path / "page.md"
    words = ["results", "--from", str(tmp_path / "runs"), "--out", str(page)]
    assert main(words) == 0
    assert "2 runs" in capsys.readouterr().out
    picture = tmp_path / "runs" / "figures" / "digits.png"
    assert {"digits.png", "digits.svg", "6.json"} <= {path.name for path in picture.parent.iterdir()}
    assert "runs/figures/digits.png" in page.read_text()
    assert "| their distinct decision boundaries | 76 | R | 76 |" in page.read_text()
    first = picture.read_bytes()
    picture.unlink()
    pictures._comparison(*results.collect(tmp_path / "runs").comparisons[0], picture.parent)
    assert picture.read_bytes() == first


def test_wrong_on_purpose(tmp_path, capsys):
    with pytest.raises(FileError, match="no folder"):
        results.collect(tmp_path / "none")
    assert main(["results", "--from", str(tmp_path / "none"), "--out", str(tmp_path / "x.md")]) == 2
    assert re.fullmatch(r"equibit: there is no folder .*\n", capsys.readouterr().err)
    with pytest.raises(FileError, match="cannot write"):
        results.write(results.collect(tmp_path), tmp_path, tmp_path / "none" / "x.md")


def test_what_is_compared_was_trained_alike(tmp_path):
    for name, epochs, changes in (("a", 2, {}), ("b", 3, {"train.amp": True}), ("c", 3, {})):
        write_run(tmp_path / name, [0.5] * epochs, **changes)
    write_run(tmp_path / "d", [0.5] * 3, recipe="digits-digits_net-float")
    found = alike(group(runs.find([tmp_path])))
    assert sorted((g.recipe, g.epochs, dict(g.changes)) for g in found) == [
        ("digits-digits_net-float", 3, {}), (RECIPE, 3, {})
    ]  # fmt: skip
    assert alike([]) == []
