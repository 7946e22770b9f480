"""What loads what: `import equibit` is cheap, and deploying and plotting need no torch."""

import subprocess
import sys

import pytest

import equibit

BLOCKED = """
import sys
sys.modules["torch"] = None
import {module}
assert not any(name == "torch" or name.startswith("torch.") for name, m in sys.modules.items() if m is not None)
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    "module",
    [
        "equibit.bits",
        "equibit.kernels",
        "equibit.runtime",
        "equibit.classifier",
        "equibit.figures.demo",
        "equibit.figures.analyze",
        "equibit.figures.figure6",
        "equibit.figures.publish",
        "equibit.cli.figure",
        "equibit.bench.measure",
        "equibit.bench.worker",
    ],
)
def test_needs_no_torch(module):
    done = run(BLOCKED.format(module=module))
    assert done.returncode == 0, done.stderr


def test_the_block_really_blocks():
    assert run(BLOCKED.format(module="equibit.convert")).returncode != 0


def test_import_is_lazy():
    done = run("import equibit, sys; assert 'torch' not in sys.modules and 'numpy' not in sys.modules; dir(equibit)")
    assert done.returncode == 0, done.stderr


def test_every_public_name_loads_and_an_unknown_one_does_not():
    names = [name for name in dir(equibit) if not name.startswith("_")]
    assert len(names) == len(set(names)) > 25
    for name in names:
        assert getattr(equibit, name) is not None
    with pytest.raises(AttributeError, match="binarise"):
        _ = equibit.binarise
