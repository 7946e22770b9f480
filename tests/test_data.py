"""Reading data sets: right files, missing ones and hostile ones."""

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import IDX_NAMES, TEST, TRAIN, cifar_records, idx_bytes, idx_contents, pack_gzip

from equibit import data
from equibit.data import digits
from equibit.data.cifar import CIFAR10, CIFAR100
from equibit.data.mnist import FASHION_MNIST, MNIST
from equibit.errors import FileError, FormatError, InputError


def real(name, folder):
    configured = os.environ.get("EQUIBIT_DATA")
    if not configured or not (Path(configured) / folder).is_dir():
        pytest.skip(f"EQUIBIT_DATA is not set or holds no {folder}")
    return data.load(name)


# --- registry -------------------------------------------------------------------------------------------


def test_names_are_sorted_and_unknown_ones_are_errors(tmp_path):
    assert data.names() == ["cifar10", "cifar100", "digits", "fashion_mnist", "imagefolder", "mnist"]
    assert [entry.name for entry in data.entries()] == data.names()
    for verb in (data.load, data.check, data.fetch):
        with pytest.raises(InputError, match=r"unknown data set 'mnits'. Did you mean 'mnist'\?"):
            verb("mnits", tmp_path)


def test_root_is_the_variable_or_the_cache(monkeypatch):
    monkeypatch.setenv("EQUIBIT_DATA", "/some/where")
    assert data.root() == Path("/some/where")
    monkeypatch.setenv("EQUIBIT_DATA", "")
    assert data.root().name == "equibit"
    monkeypatch.delenv("EQUIBIT_DATA")
    assert data.root().name == "equibit"


def test_load_uses_the_variable(small_mnist, monkeypatch):
    monkeypatch.setenv("EQUIBIT_DATA", str(small_mnist))
    assert len(data.load("mnist").train_images) == TRAIN


# --- digits ---------------------------------------------------------------------------------------------


def test_digits():
    loaded = data.load("digits")
    assert loaded.train_images.shape == (1437, 1, 8, 8)
    assert loaded.test_images.shape == (360, 1, 8, 8)
    assert loaded.in_shape == (1, 8, 8)
    assert loaded.train_images.dtype == loaded.test_images.dtype == torch.uint8
    assert loaded.train_labels.dtype == loaded.test_labels.dtype == torch.int64
    assert loaded.train_images.max() == 255
    assert "images" not in repr(loaded)


def test_digits_split_is_stratified_disjoint_complete_and_fixed():
    loaded = data.load("digits")
    train, test = torch.bincount(loaded.train_labels), torch.bincount(loaded.test_labels)
    assert torch.all((test / (train + test) - 0.2).abs() < 0.01)
    images, labels = digits._read()
    train_index, test_index = digits._split(labels)
    assert sorted([*train_index.tolist(), *test_index.tolist()]) == list(range(len(images)))
    digest = hashlib.sha1(loaded.test_images.numpy().tobytes()).hexdigest()
    assert digest == "41b25a0b455ed7665ee07c5fde870ceab8861fe1"


def test_digits_statistics():
    loaded = data.load("digits")
    assert_statistics(loaded)


def test_digits_that_changed_warn(monkeypatch):
    images, labels = digits._read()
    monkeypatch.setattr(digits, "_read", lambda: (images[:-7], labels[:-7]))
    with pytest.warns(data.DataWarning, match="1,790 images, expected 1,797"):
        data.load("digits")
    (result,) = data.check("digits")
    assert not result.checksum_ok


def test_digits_check_and_fetch(tmp_path):
    (result,) = data.check("digits")
    assert result == data.FileCheck(
        "scikit-learn: load_digits", True, True, 1797, "embedded in scikit-learn, as expected"
    )
    assert data.fetch("digits", tmp_path) == []


def assert_statistics(loaded):
    total = square = 0
    for chunk in loaded.train_images.split(5_000):
        pixels = chunk.float() / 255
        total = total + pixels.sum((0, 2, 3)).double()
        square = square + pixels.square().sum((0, 2, 3)).double()
    count = loaded.train_images[:, 0].numel()
    mean = total / count
    assert torch.allclose(mean, torch.tensor(loaded.mean).double(), atol=6e-5)
    assert torch.allclose((square / count - mean**2).sqrt(), torch.tensor(loaded.std).double(), atol=6e-5)


# --- real data ------------------------------------------------------------------------------------------


def test_real_mnist():
    loaded = real("mnist", "mnist")
    assert loaded.train_images.shape == (60_000, 1, 28, 28)
    assert loaded.test_images.shape == (10_000, 1, 28, 28)
    assert loaded.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert loaded.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert_statistics(loaded)
    assert [(result.checksum_ok, result.images) for result in data.check("mnist")] == [
        (True, 60_000),
        (True, 60_000),
        (True, 10_000),
        (True, 10_000),
    ]


def test_real_mnist_checksums_of_the_unpacked_files(tmp_path):
    real("mnist", "mnist")
    (tmp_path / "mnist").mkdir()
    for file in MNIST.published:
        content = gzip.decompress((data.root() / "mnist" / file.name).read_bytes())
        (tmp_path / "mnist" / file.name.removesuffix(".gz")).write_bytes(content)
    assert all(result.checksum_ok for result in data.check("mnist", tmp_path))


@pytest.mark.filterwarnings("ignore::equibit.data.DataWarning")
def test_real_cifar10():
    loaded = real("cifar10", CIFAR10.folder)
    assert loaded.train_images.shape == (50_000, 3, 32, 32)
    assert loaded.test_images.shape[1:] == (3, 32, 32)
    assert 0 < len(loaded.test_images) <= 10_000
    assert len(loaded.test_images) == len(loaded.test_labels)
    assert torch.bincount(loaded.train_labels).tolist() == [5_000] * 10
    assert [loaded.classes[label] for label in loaded.train_labels[:3]] == ["frog", "truck", "truck"]
    assert loaded.train_images[0, :, 0, 0].tolist() == [59, 62, 63]  # the red, green, blue of one pixel
    assert_statistics(loaded)
    results = {Path(result.file).name: result for result in data.check("cifar10")}
    assert all(results[file.name].checksum_ok for file in CIFAR10.batches if file.training)
    assert results["test_batch.bin"].images == len(loaded.test_images)


@pytest.mark.filterwarnings("error")
def test_real_cifar100():
    loaded = real("cifar100", CIFAR100.folder)
    assert loaded.in_shape == loaded.train_images.shape[1:] == (3, 32, 32)
    for split, name, each in ((loaded.train, "train.bin", 500), (loaded.test, "test.bin", 100)):
        assert len(split) == len(split.labels) == 100 * each
        assert torch.bincount(split.labels).tolist() == [each] * 100
        records = (data.root() / CIFAR100.folder / name).read_bytes()
        assert split.labels[:1000].tolist() == [records[3074 * i + 1] for i in range(1000)]
        assert split.images[7, 1, 2].tolist() == list(records[3074 * 7 + 2 + 1024 + 64 :][:32])  # green, third row
    assert loaded.train_labels[:3].tolist() == [19, 29, 0]
    assert [loaded.classes[label] for label in (19, 29, 0)] == ["cattle", "dinosaur", "apple"]
    assert_statistics(loaded)
    results = data.check("cifar100")
    assert [(result.checksum_ok, result.images) for result in results] == [(True, 50_000), (True, 10_000), (True, None)]


# --- reading the published layout -----------------------------------------------------------------------


def test_small_mnist_round_trip(small_mnist):
    loaded = data.load("mnist", small_mnist)
    content = idx_contents()[IDX_NAMES[0]]
    assert loaded.train_images.numpy().tobytes() == content[16:]
    assert loaded.train_labels.tolist() == [index % 10 for index in range(TRAIN)]
    assert loaded.test_images.shape == (TEST, 1, 28, 28)
    assert all(result.checksum_ok and result.present for result in data.check("mnist", str(small_mnist)))


def test_unpacked_mnist_is_read_too(small_mnist):
    for path in (small_mnist / "mnist").glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert data.load("mnist", small_mnist).train_images.shape == (TRAIN, 1, 28, 28)
    assert all(result.checksum_ok for result in data.check("mnist", small_mnist))


def test_small_fashion_mnist_round_trip(small_fashion):
    loaded = data.load("fashion_mnist", small_fashion)
    assert loaded.train_images.numpy().tobytes() == idx_contents()[IDX_NAMES[0]][16:]
    assert loaded.test_labels.tolist() == list(range(TEST))
    assert [loaded.classes[label] for label in (0, 9)] == ["T-shirt/top", "Ankle boot"]
    assert len(set(loaded.classes)) == 10
    assert all(result.checksum_ok for result in data.check("fashion_mnist", small_fashion))


def test_unpacked_files_without_a_known_checksum_are_not_read(small_fashion):
    path = small_fashion / "fashion-mnist" / IDX_NAMES[0]
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    with pytest.raises(FileError, match=r"train-images-idx3-ubyte.gz is missing"):
        data.load("fashion_mnist", small_fashion)


def test_published_checksums_are_of_different_files():
    published = [file for known in (CIFAR10, CIFAR100) for file in known.batches]
    published += [file for known in (MNIST, FASHION_MNIST) for file in known.published]
    assert len(published) == 16
    assert len({file.checksum for file in published}) == 16
    assert {len(file.checksum) for file in published if file.algorithm == "md5"} == {32}
    assert {len(file.checksum) for file in published if file.algorithm == "sha1"} == {40}


def test_small_cifar100_takes_the_fine_labels(small_cifar100):
    loaded = data.load("cifar100", small_cifar100)
    assert loaded.train_labels.tolist() == [99 - index for index in range(TRAIN)]
    assert loaded.test_images.shape == (TEST, 3, 32, 32)
    first = cifar_records(TEST, 1, CIFAR100)[:, 2:].reshape(-1, 3, 32, 32)
    assert torch.equal(loaded.test_images, torch.from_numpy(first.copy()))
    assert [result.checksum_ok for result in data.check("cifar100", small_cifar100)] == [True] * 3


@pytest.mark.parametrize(
    ("label", "message"),
    [((20, 0), "label 20 in record 0, expected 0..19"), ((19, 100), "label 100 in record 0, expected 0..99")],
)
def test_cifar100_checks_both_labels(label, message, small_cifar100):
    records = cifar_records(TEST, 1, CIFAR100)
    records[0, :2] = label
    (small_cifar100 / CIFAR100.folder / "test.bin").write_bytes(records.tobytes())
    with pytest.raises(FormatError, match=message):
        data.load("cifar100", small_cifar100)


def test_records_of_cifar10_are_not_cifar100(small_cifar100):
    path = small_cifar100 / CIFAR100.folder / "train.bin"
    path.write_bytes(cifar_records(TRAIN).tobytes())
    with pytest.raises(FormatError, match="expected a whole number of 3,074-byte records"):
        data.load("cifar100", small_cifar100)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (CIFAR100.classes[:99], "found nothing as class name 100, expected worm"),
        ((*CIFAR100.classes, "wyvern"), "found wyvern as class name 101, expected nothing"),
        (CIFAR100.classes[::-1], "found worm as class name 1, expected apple"),
    ],
)
def test_class_names_of_cifar100(names, message, small_cifar100):
    (small_cifar100 / CIFAR100.folder / CIFAR100.names_file).write_text("\n".join(names))
    with pytest.raises(FormatError, match=message):
        data.load("cifar100", small_cifar100)


def test_small_cifar_round_trip(small_cifar):
    loaded = data.load("cifar10", small_cifar)
    assert loaded.train_images.shape == (5 * TRAIN, 3, 32, 32)
    last = cifar_records(TRAIN, seed=4)
    assert torch.equal(loaded.train_images[-TRAIN:], torch.from_numpy(last[:, 1:].reshape(-1, 3, 32, 32).copy()))
    assert loaded.train_labels.tolist() == [index % 10 for index in range(TRAIN)] * 5
    results = data.check("cifar10", small_cifar)
    assert len(results) == 7
    assert all(result.checksum_ok for result in results)


def test_a_shorter_test_file_warns_with_the_image_count(small_cifar):
    path = small_cifar / CIFAR10.folder / "test_batch.bin"
    path.write_bytes(cifar_records(TEST - 2, seed=5).tobytes())
    with pytest.warns(data.DataWarning, match=r"test_batch.bin: its sha1 .* holds 3 images, the published file 5"):
        loaded = data.load("cifar10", small_cifar)
    assert len(loaded.test_images) == TEST - 2
    result = data.check("cifar10", small_cifar)[5]
    assert (result.present, result.checksum_ok, result.images) == (True, False, 3)


def test_altered_pixels_warn(small_mnist):
    path = small_mnist / "mnist" / IDX_NAMES[0]
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    path.write_bytes(pack_gzip(bytes(content)))
    with pytest.warns(data.DataWarning, match="train-images.*md5 checksum differs.*12 images"):
        data.load("mnist", small_mnist)


# --- missing files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist", "mnist"])
def test_missing_folder(name, tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIBIT_DATA", str(tmp_path))
    with pytest.raises(FileError, match="is missing") as caught:
        data.load(name)
    for part in (str(tmp_path), "EQUIBIT_DATA", f"`equibit data fetch {name}`"):
        assert part in str(caught.value)
    results = data.check(name)
    assert results
    assert not any(result.present or result.checksum_ok for result in results)


def test_missing_file(small_cifar):
    (small_cifar / CIFAR10.folder / "data_batch_3.bin").unlink()
    with pytest.raises(FileError, match=r"data_batch_3.bin is missing"):
        data.load("cifar10", small_cifar)
    assert [result.present for result in data.check("cifar10", small_cifar)].count(False) == 1


def test_missing_class_names(small_cifar):
    (small_cifar / CIFAR10.folder / CIFAR10.names_file).unlink()
    with pytest.raises(FileError, match=r"batches.meta.txt is missing"):
        data.load("cifar10", small_cifar)


def test_a_folder_in_place_of_a_file(small_cifar):
    path = small_cifar / CIFAR10.folder / "test_batch.bin"
    path.unlink()
    path.mkdir()
    with pytest.raises(FileError, match=r"cannot read .*test_batch.bin"):
        data.load("cifar10", small_cifar)


# --- hostile files --------------------------------------------------------------------------------------

IMAGES, LABELS = IDX_NAMES[0], IDX_NAMES[1]
TEST_IMAGES, TEST_LABELS = IDX_NAMES[2], IDX_NAMES[3]


def blank(count, rows=28):
    return np.zeros((count, rows, rows))


HOSTILE_MNIST = {
    "empty": (IMAGES, b"", "damaged gzip|idx header"),
    "not gzip": (IMAGES, b"<html>not found</html>", "damaged gzip"),
    "truncated gzip": (IMAGES, pack_gzip(idx_bytes(blank(TRAIN)))[:-9], "damaged gzip"),
    "corrupt gzip": (IMAGES, b"\x1f\x8b\x08\0\0\0\0\0\0\0" + b"\xff" * 50, "damaged gzip"),
    "garbage after gzip": (IMAGES, pack_gzip(idx_bytes(blank(TRAIN))) + b"junk", "damaged gzip"),
    "short header": (IMAGES, pack_gzip(b"\0\0\x08\x03\0\0"), "found 6 bytes, expected an idx header of 16"),
    "wrong magic": (
        IMAGES,
        pack_gzip(idx_bytes(blank(TRAIN), 0x801)),
        "magic number 0x00000801, expected 0x0",
    ),
    "labels as images": (IMAGES, pack_gzip(idx_bytes(np.zeros(60))), "magic number 0x00000801"),
    "wrong size": (IMAGES, pack_gzip(idx_bytes(blank(TRAIN, 27))), r"shape \(27, 27\), expected \(28, 28\)"),
    "truncated": (IMAGES, pack_gzip(idx_bytes(blank(TRAIN))[:-1]), "found 9,423 bytes, expected 9,424"),
    "too long": (IMAGES, pack_gzip(idx_bytes(blank(TRAIN)) + b"\0"), "found 9,425 bytes, expected 9,424"),
    "train not whole": (IMAGES, pack_gzip(idx_bytes(blank(TRAIN - 1))), "found 11 images, expected 12"),
    "labels not whole": (LABELS, pack_gzip(idx_bytes(np.zeros(TRAIN - 1))), "found 11 labels, expected 12"),
    "huge count": (
        IMAGES,
        pack_gzip(struct.pack(">4I", 0x803, 2**32 - 1, 28, 28)),
        "found 16 bytes, expected 3,",
    ),
    "label 200": (
        LABELS,
        pack_gzip(idx_bytes(np.array([1, 2, 200] * 4))),
        "label 200 in record 2, expected 0..9",
    ),
    "no test images": (TEST_IMAGES, pack_gzip(idx_bytes(blank(0))), "found 0 images, expected at least 1"),
}


@pytest.mark.parametrize("case", HOSTILE_MNIST)
def test_hostile_mnist(case, small_mnist):
    name, content, message = HOSTILE_MNIST[case]
    (small_mnist / "mnist" / name).write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        data.load("mnist", small_mnist)
    assert name in str(caught.value)
    result = next(result for result in data.check("mnist", small_mnist) if result.file.endswith(name))
    assert (result.present, result.checksum_ok, result.images) == (True, False, None)


@pytest.mark.filterwarnings("ignore::equibit.data.DataWarning")
def test_counts_of_images_and_labels_that_differ(small_mnist):
    path = small_mnist / "mnist" / TEST_LABELS
    path.write_bytes(pack_gzip(idx_bytes(np.arange(TEST - 1))))
    with pytest.raises(FormatError, match=r"labels.*found 4 labels, expected 5.*t10k-images"):
        data.load("mnist", small_mnist)


def bad_label():
    records = cifar_records(TRAIN)
    records[7, 0] = 200
    return records.tobytes()


HOSTILE_CIFAR = {
    "empty training": ("data_batch_1.bin", b"", "found 0 images, expected 12"),
    "empty test": ("test_batch.bin", b"", "found 0 images, expected at least 1"),
    "3072-byte records": ("data_batch_2.bin", b"\0" * 3072 * TRAIN, "expected a whole number of 3,073-byte"),
    "truncated": ("data_batch_2.bin", cifar_records(TRAIN).tobytes()[:-1], "found 36,875 bytes"),
    "truncated test": ("test_batch.bin", cifar_records(TEST).tobytes()[:-100], "found 15,265 bytes"),
    "train not whole": (
        "data_batch_5.bin",
        cifar_records(TRAIN - 1).tobytes(),
        "found 11 images, expected 12",
    ),
    "train too long": (
        "data_batch_5.bin",
        cifar_records(TRAIN + 1).tobytes(),
        "found 13 images, expected 12",
    ),
    "label 200": ("data_batch_1.bin", bad_label(), "label 200 in record 7, expected 0..9"),
    "class names": (
        CIFAR10.names_file,
        b"cat\ndog\n",
        "found cat as class name 1, expected airplane",
    ),
    "binary names": (CIFAR10.names_file, b"\xff\xfe\0", "as class name 1, expected airplane"),
}


@pytest.mark.parametrize("case", HOSTILE_CIFAR)
def test_hostile_cifar(case, small_cifar):
    name, content, message = HOSTILE_CIFAR[case]
    (small_cifar / CIFAR10.folder / name).write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        data.load("cifar10", small_cifar)
    assert name in str(caught.value)
    result = next(result for result in data.check("cifar10", small_cifar) if result.file.endswith(name))
    assert (result.present, result.checksum_ok, result.images) == (True, False, None)
