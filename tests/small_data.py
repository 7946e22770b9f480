"""Small data sets in the published layout, which count as the published ones."""

import gzip
import hashlib
import struct
from dataclasses import replace

import numpy as np
import pytest

from equibit.data import cifar10, mnist

TRAIN, TEST = 12, 5  # records of the small sets written here


def idx_bytes(array, magic=None):
    header = struct.pack(f">I{array.ndim}I", magic or 0x800 | array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def mnist_contents():
    rng = np.random.default_rng(0)
    return {
        mnist.FILES[0].name: idx_bytes(rng.integers(0, 256, (TRAIN, 28, 28))),
        mnist.FILES[1].name: idx_bytes(np.arange(TRAIN) % 10),
        mnist.FILES[2].name: idx_bytes(rng.integers(0, 256, (TEST, 28, 28))),
        mnist.FILES[3].name: idx_bytes(np.arange(TEST)),
    }


def pack_gzip(content):
    return gzip.compress(content, mtime=0)


def published_as(file, content, **changes):
    """`file` with the record count of a small set and the checksum of `content`."""
    records = TRAIN if file.training else TEST
    return replace(file, records=records, checksum=hashlib.new(file.algorithm, content).hexdigest(), **changes)


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A root with a small MNIST that counts as the published one."""
    contents = mnist_contents()
    published = tuple(
        published_as(file, pack_gzip(contents[file.name]), unpacked=hashlib.md5(contents[file.name]).hexdigest())
        for file in mnist.FILES
    )
    monkeypatch.setattr(mnist, "FILES", published)
    (tmp_path / "mnist").mkdir()
    for name, content in contents.items():
        (tmp_path / "mnist" / name).write_bytes(pack_gzip(content))
    return tmp_path


def cifar_records(count, seed=0):
    records = np.random.default_rng(seed).integers(0, 256, (count, cifar10.RECORD), dtype=np.uint8)
    records[:, 0] = np.arange(count) % 10
    return records


def cifar_contents():
    counts = [TRAIN] * 5 + [TEST]
    contents = {
        file.name: cifar_records(count, seed).tobytes()
        for seed, (file, count) in enumerate(zip(cifar10.FILES, counts, strict=True))
    }
    return contents | {cifar10.META: ("\n".join(cifar10.CLASSES) + "\n\n").encode()}


@pytest.fixture
def cifar_published(monkeypatch):
    """Contents of a small CIFAR-10 that counts as the published one."""
    contents = cifar_contents()
    published = tuple(published_as(file, contents[file.name]) for file in cifar10.FILES)
    monkeypatch.setattr(cifar10, "FILES", published)
    return contents


@pytest.fixture
def small_cifar(tmp_path, cifar_published):
    folder = tmp_path / cifar10.FOLDER
    folder.mkdir()
    for name, content in cifar_published.items():
        (folder / name).write_bytes(content)
    return tmp_path
