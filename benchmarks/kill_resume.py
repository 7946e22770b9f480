"""Kills a training at random moments, resumes it, and compares it with one that was left alone.

    python benchmarks/kill_resume.py RECIPE --out FOLDER [--kills 20] [--seed 0] [--section.key value ...]

Each start is `equibit train RECIPE --resume`, a process of its own, killed with SIGKILL after a time drawn uniformly
between 0 and one and a half epochs after its start-up; the last start runs to its end. Both runs must then hold the
same metrics (but for times), weights and optimiser state, bit for bit. Writes FOLDER/kill_resume.json; exit code 1 if
they differ.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from equibit.training import checkpoint, record


def start(recipe: str, out: Path, options: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "equibit.cli", "train", recipe, "--out", str(out), "--resume", *options]
    with (out.parent / f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def rows(run: Path) -> list[dict[str, Any]]:
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    return [json.loads(line) for line in lines]


def kill_after(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the process was still running when it was killed."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait() == -9


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same in two runs; empty if they are equal bit for bit."""
    first, second = ([{**row, "seconds": None} for row in rows(run)] for run in (one, other))
    pairs = enumerate(zip(first, second, strict=False), start=1)
    found = [f"metrics of epoch {epoch}" for epoch, (a, b) in pairs if a != b]
    if len(first) != len(second):
        found.append(f"{len(first)} and {len(second)} epochs")
    states = [checkpoint.load_state(run / "state.safetensors") for run in (one, other)]
    for part in ("model", "optimizer", "average"):
        a, b = (getattr(state, part) for state in states)
        found += sorted(f"{part} {key}" for key in a.keys() | b.keys() if not _same(a.get(key), b.get(key)))
    return found


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments, options = parser.parse_known_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    whole, killed = arguments.out / "whole", arguments.out / "killed"
    began = time.perf_counter()
    if start(arguments.recipe, whole, options).wait():
        sys.exit(f"the training left alone failed; see {whole}.log")
    epoch = sum(row["seconds"] for row in rows(whole)) / len(rows(whole))
    start_up = time.perf_counter() - began - epoch * len(rows(whole))
    chance, kills = random.Random(arguments.seed), []
    while len(kills) < arguments.kills:
        moment = start_up + chance.uniform(0, 1.5) * epoch
        done = len(rows(killed))
        if not kill_after(start(arguments.recipe, killed, options), moment):
            sys.exit(f"kill {len(kills) + 1} came after the end: train for more epochs.")
        kills.append({"seconds_after_start": moment, "epochs_before": done, "epochs_after": len(rows(killed))})
        print(f"kill {len(kills)}: {kills[-1]}", flush=True)
    start(arguments.recipe, killed, options).wait()
    found = {
        "command": " ".join(["python benchmarks/kill_resume.py", *sys.argv[1:]]).replace(str(arguments.out), "FOLDER"),
        "epochs": len(rows(whole)),
        "epoch_seconds": epoch,
        "kills": kills,
        "differences": differences(whole, killed),
        "hardware": record.hardware("cpu"),
        "versions": record.versions(),
        "commit": record.source_commit(),
    }
    (arguments.out / "kill_resume.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"{len(kills)} kills; differences: {found['differences'] or 'none'}")
    return 1 if found["differences"] else 0


if __name__ == "__main__":
    sys.exit(main())
