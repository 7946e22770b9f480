"""Small data sets in the published layout, which count as the published ones."""

import gzip
import hashlib
import struct
from dataclasses import replace

import numpy as np
import pytest

from equibit.data import cifar, mnist, registry

TRAIN, TEST = 12, 5  # records of the small sets written here
IDX_NAMES = tuple(file.name for file in mnist.MNIST.published)


def idx_bytes(array, magic=None):
    header = struct.pack(f">I{array.ndim}I", magic or 0x800 | array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def idx_contents():
    rng = np.random.default_rng(0)
    return {
        IDX_NAMES[0]: idx_bytes(rng.integers(0, 256, (TRAIN, 28, 28))),
        IDX_NAMES[1]: idx_bytes(np.arange(TRAIN) % 10),
        IDX_NAMES[2]: idx_bytes(rng.integers(0, 256, (TEST, 28, 28))),
        IDX_NAMES[3]: idx_bytes(np.arange(TEST)),
    }


def pack_gzip(content):
    return gzip.compress(content, mtime=0)


def published_as(file, content, **changes):
    """`file` with the record count of a small set and the checksum of `content`."""
    records = TRAIN if file.training else TEST
    return replace(file, records=records, checksum=hashlib.new(file.algorithm, content).hexdigest(), **changes)


def register(monkeypatch, source):
    """`source` in place of the data set of its name."""
    new = registry.published(source)
    monkeypatch.setattr(registry, "_TABLE", tuple(new if e.name == new.name else e for e in registry._TABLE))


def small_idx(full, root, monkeypatch):
    """Writes a small set in place of `full`, which then counts as the published one."""
    contents, packed = idx_contents(), {name: pack_gzip(content) for name, content in idx_contents().items()}
    known = [f.unpacked and hashlib.md5(contents[f.name]).hexdigest() for f in full.published]
    files = tuple(
        published_as(f, packed[f.name], unpacked=unpacked) for f, unpacked in zip(full.published, known, strict=True)
    )
    register(monkeypatch, replace(full, published=files))
    (root / full.folder).mkdir()
    for name, content in packed.items():
        (root / full.folder / name).write_bytes(content)


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A root with a small MNIST that counts as the published one."""
    small_idx(mnist.MNIST, tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def small_fashion(tmp_path, monkeypatch):
    """A root with a small Fashion-MNIST that counts as the published one."""
    small_idx(mnist.FASHION_MNIST, tmp_path, monkeypatch)
    return tmp_path


def cifar_records(count, seed=0, full=cifar.CIFAR10):
    """Random records; the coarse label of CIFAR-100 is not that of its fine one, so that a mix-up shows."""
    records = np.random.default_rng(seed).integers(0, 256, (count, full.label_bytes + 3072), dtype=np.uint8)
    records[:, 0] = np.arange(count) % 10
    if full is cifar.CIFAR100:
        records[:, 1] = 99 - np.arange(count)
    return records


def cifar_contents(full=cifar.CIFAR10):
    contents = {
        file.name: cifar_records(TRAIN if file.training else TEST, seed, full).tobytes()
        for seed, file in enumerate(full.batches)
    }
    return contents | {full.names_file: ("\n".join(full.classes) + "\n\n").encode()}


def publish_cifar(full, monkeypatch):
    """Contents of a small set in place of `full`, which then counts as the published one."""
    contents = cifar_contents(full)
    register(monkeypatch, replace(full, batches=tuple(published_as(f, contents[f.name]) for f in full.batches)))
    return contents


@pytest.fixture
def cifar_published(monkeypatch):
    """Contents of a small CIFAR-10 that counts as the published one."""
    return publish_cifar(cifar.CIFAR10, monkeypatch)


def write_files(folder, contents):
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)


@pytest.fixture
def small_cifar(tmp_path, cifar_published):
    write_files(tmp_path / cifar.CIFAR10.folder, cifar_published)
    return tmp_path


@pytest.fixture
def small_cifar100(tmp_path, monkeypatch):
    write_files(tmp_path / cifar.CIFAR100.folder, publish_cifar(cifar.CIFAR100, monkeypatch))
    return tmp_path
