import gzip
import hashlib
import http.server
import io
import os
import struct
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from equibit import data
from equibit.data import cifar10, digits, download, mnist
from equibit.errors import FileError, FormatError, InputError

TRAIN, TEST = 12, 5  # records of the small sets written here


def real(name, folder):
    configured = os.environ.get("EQUIBIT_DATA")
    if not configured or not (Path(configured) / folder).is_dir():
        pytest.skip(f"EQUIBIT_DATA is not set or holds no {folder}")
    return data.load(name)


# --- small data sets in the published layout ------------------------------------------------------------


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
    return replace(
        file, records=records, checksum=hashlib.new(file.algorithm, content).hexdigest(), **changes
    )


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A root with a small MNIST that counts as the published one."""
    contents = mnist_contents()
    published = tuple(
        published_as(
            file, pack_gzip(contents[file.name]), unpacked=hashlib.md5(contents[file.name]).hexdigest()
        )
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


# --- registry -------------------------------------------------------------------------------------------


def test_names_are_sorted_and_unknown_ones_are_errors(tmp_path):
    assert data.names() == ["cifar10", "digits", "mnist"]
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
    for file in mnist.FILES:
        content = gzip.decompress((data.root() / "mnist" / file.name).read_bytes())
        (tmp_path / "mnist" / file.name.removesuffix(".gz")).write_bytes(content)
    assert all(result.checksum_ok for result in data.check("mnist", tmp_path))


@pytest.mark.filterwarnings("ignore::equibit.data.DataWarning")
def test_real_cifar10():
    loaded = real("cifar10", cifar10.FOLDER)
    assert loaded.train_images.shape == (50_000, 3, 32, 32)
    assert loaded.test_images.shape[1:] == (3, 32, 32)
    assert 0 < len(loaded.test_images) <= 10_000
    assert len(loaded.test_images) == len(loaded.test_labels)
    assert torch.bincount(loaded.train_labels).tolist() == [5_000] * 10
    assert [loaded.classes[label] for label in loaded.train_labels[:3]] == ["frog", "truck", "truck"]
    assert loaded.train_images[0, :, 0, 0].tolist() == [59, 62, 63]  # the red, green, blue of one pixel
    assert_statistics(loaded)
    results = {Path(result.file).name: result for result in data.check("cifar10")}
    assert all(results[file.name].checksum_ok for file in cifar10.FILES if file.training)
    assert results["test_batch.bin"].images == len(loaded.test_images)


# --- reading the published layout -----------------------------------------------------------------------


def test_small_mnist_round_trip(small_mnist):
    loaded = data.load("mnist", small_mnist)
    content = mnist_contents()[mnist.FILES[0].name]
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


def test_small_cifar_round_trip(small_cifar):
    loaded = data.load("cifar10", small_cifar)
    assert loaded.train_images.shape == (5 * TRAIN, 3, 32, 32)
    last = cifar_records(TRAIN, seed=4)
    assert torch.equal(
        loaded.train_images[-TRAIN:], torch.from_numpy(last[:, 1:].reshape(-1, 3, 32, 32).copy())
    )
    assert loaded.train_labels.tolist() == [index % 10 for index in range(TRAIN)] * 5
    results = data.check("cifar10", small_cifar)
    assert len(results) == 7
    assert all(result.checksum_ok for result in results)


def test_a_shorter_test_file_warns_with_the_image_count(small_cifar):
    path = small_cifar / cifar10.FOLDER / "test_batch.bin"
    path.write_bytes(cifar_records(TEST - 2, seed=5).tobytes())
    with pytest.warns(
        data.DataWarning, match=r"test_batch.bin: its sha1 .* holds 3 images, the published file 5"
    ):
        loaded = data.load("cifar10", small_cifar)
    assert len(loaded.test_images) == TEST - 2
    result = data.check("cifar10", small_cifar)[5]
    assert (result.present, result.checksum_ok, result.images) == (True, False, 3)


def test_altered_pixels_warn(small_mnist):
    path = small_mnist / "mnist" / mnist.FILES[0].name
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    path.write_bytes(pack_gzip(bytes(content)))
    with pytest.warns(data.DataWarning, match="train-images.*md5 checksum differs.*12 images"):
        data.load("mnist", small_mnist)


# --- missing files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
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
    (small_cifar / cifar10.FOLDER / "data_batch_3.bin").unlink()
    with pytest.raises(FileError, match=r"data_batch_3.bin is missing"):
        data.load("cifar10", small_cifar)
    assert [result.present for result in data.check("cifar10", small_cifar)].count(False) == 1


def test_missing_class_names(small_cifar):
    (small_cifar / cifar10.FOLDER / cifar10.META).unlink()
    with pytest.raises(FileError, match=r"batches.meta.txt is missing"):
        data.load("cifar10", small_cifar)


def test_a_folder_in_place_of_a_file(small_cifar):
    path = small_cifar / cifar10.FOLDER / "test_batch.bin"
    path.unlink()
    path.mkdir()
    with pytest.raises(FileError, match=r"cannot read .*test_batch.bin"):
        data.load("cifar10", small_cifar)


# --- hostile files --------------------------------------------------------------------------------------

IMAGES, LABELS = mnist.FILES[0].name, mnist.FILES[1].name
TEST_IMAGES, TEST_LABELS = mnist.FILES[2].name, mnist.FILES[3].name


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
    "class names": (cifar10.META, b"cat\ndog\n", "found the class names cat, dog; expected airplane"),
    "binary names": (cifar10.META, b"\xff\xfe\0", "found the class names"),
}


@pytest.mark.parametrize("case", HOSTILE_CIFAR)
def test_hostile_cifar(case, small_cifar):
    name, content, message = HOSTILE_CIFAR[case]
    (small_cifar / cifar10.FOLDER / name).write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        data.load("cifar10", small_cifar)
    assert name in str(caught.value)
    result = next(result for result in data.check("cifar10", small_cifar) if result.file.endswith(name))
    assert (result.present, result.checksum_ok, result.images) == (True, False, None)


# --- fetch ----------------------------------------------------------------------------------------------


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/breaks-off/"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only a part")
        else:
            super().do_GET()

    def log_message(self, *arguments):
        self.server.requests.append(self.path)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A local server of an empty folder; gives its address, the folder and the list of requests."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()

    def handler(*arguments):
        return Handler(*arguments, directory=str(folder))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.requests = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", folder, running.requests
        running.shutdown()
        thread.join()


def serve_mnist(small_mnist, folder):
    for path in (small_mnist / "mnist").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())


def test_fetch_mnist(small_mnist, server, tmp_path, capfd):
    url, folder, requests = server
    serve_mnist(small_mnist, folder)
    root = tmp_path / "new" / "root"
    paths = data.fetch("mnist", root, base_url=url)
    assert [path.name for path in paths] == [file.name for file in mnist.FILES]
    assert len(data.load("mnist", root).train_images) == TRAIN
    assert len(requests) == 4
    assert data.fetch("mnist", root, base_url=url) == paths
    assert len(requests) == 4  # nothing is downloaded twice
    assert capfd.readouterr() == ("", "")


def test_fetch_replaces_only_what_is_altered(small_mnist, server):
    url, folder, requests = server
    serve_mnist(small_mnist, folder)
    (small_mnist / "mnist" / IMAGES).write_bytes(b"altered")
    data.fetch("mnist", small_mnist, base_url=url + "/")
    assert requests == [f"/{IMAGES}"]
    assert all(result.checksum_ok for result in data.check("mnist", small_mnist))


def test_fetch_keeps_nothing_of_a_download_with_another_checksum(small_mnist, server, tmp_path):
    url, folder, _ = server
    serve_mnist(small_mnist, folder)
    (folder / IMAGES).write_bytes(b"something else")
    with pytest.raises(FormatError, match=r"train-images.*is not the published file: its checksum differs"):
        data.fetch("mnist", tmp_path / "new", base_url=url)
    assert list((tmp_path / "new" / "mnist").iterdir()) == []


def test_fetch_reports_progress(small_mnist, server, tmp_path):
    class Progress:
        total = 0
        done = 0

        def update(self, count):
            self.done += count

        def reset(self):
            self.done = 0

        def close(self):
            pass

    url, folder, _ = server
    serve_mnist(small_mnist, folder)
    progress = Progress()
    paths = data.fetch("mnist", tmp_path / "new", base_url=url, progress=progress)
    assert progress.done == progress.total == paths[-1].stat().st_size


@pytest.mark.parametrize(("name", "folder"), [("mnist", "mnist"), ("cifar10", cifar10.FOLDER)])
def test_fetch_without_a_network_says_what_to_do(name, folder, server, tmp_path):
    url, _, _ = server  # the served folder is empty: 404
    with pytest.raises(FileError, match="cannot download") as caught:
        data.fetch(name, tmp_path / "new", base_url=url)
    assert str(tmp_path / "new" / folder) in str(caught.value)
    assert "EQUIBIT_DATA" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]


def test_a_download_that_breaks_off_leaves_nothing(server, tmp_path):
    url, _, _ = server
    with pytest.raises(FileError, match=r"cannot download .*/breaks-off/train-images"):
        data.fetch("mnist", tmp_path / "new", base_url=f"{url}/breaks-off")
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]


def test_fetch_from_a_closed_port(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(FileError, match=r"cannot download http://127.0.0.1:1/train-images"):
        data.fetch("mnist", tmp_path, base_url="http://127.0.0.1:1")


def test_fetch_to_a_place_that_is_a_file(tmp_path, cifar_published):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="cannot write below"):
        data.fetch("cifar10", tmp_path / "file", base_url="http://127.0.0.1:1")


def write_archive(path, contents, extra=()):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in [*contents.items()]:
            member = tarfile.TarInfo(f"{cifar10.FOLDER}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member)


def test_fetch_cifar(cifar_published, server, tmp_path, capfd):
    url, folder, requests = server
    write_archive(folder / cifar10.ARCHIVE, cifar_published | {"readme.html": b"<html>"})
    root = tmp_path / "new"
    paths = data.fetch("cifar10", root, base_url=url)
    assert sorted(path.name for path in paths) == sorted(cifar_published)
    assert sorted(path.name for path in root.rglob("*")) == sorted([cifar10.FOLDER, *cifar_published])
    assert len(data.load("cifar10", root).train_images) == 5 * TRAIN
    assert data.fetch("cifar10", root, base_url=url) == paths
    assert len(requests) == 1
    assert capfd.readouterr() == ("", "")


def test_fetch_cifar_replaces_a_shorter_test_file(small_cifar, cifar_published, server):
    url, folder, _ = server
    write_archive(folder / cifar10.ARCHIVE, cifar_published)
    (small_cifar / cifar10.FOLDER / "test_batch.bin").write_bytes(cifar_records(1).tobytes())
    data.fetch("cifar10", small_cifar, base_url=url)
    assert len(data.load("cifar10", small_cifar).test_images) == TEST


def bad_archives(contents):
    link = tarfile.TarInfo(f"{cifar10.FOLDER}/test_batch.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    without = {name: content for name, content in contents.items() if name != "test_batch.bin"}
    altered = contents | {"test_batch.bin": cifar_records(TEST, seed=9).tobytes()}
    return {
        "member missing": (without, (), "expected the files cifar-10-batches-bin/test_batch.bin"),
        "a link": (without, (link,), "expected a regular file"),
        "altered": (altered, (), "not the published archive: .*checksum differs"),
        "structure": (contents | {"test_batch.bin": b"x"}, (), "not the published archive: .*found 1 bytes"),
    }


@pytest.mark.parametrize("case", bad_archives(cifar_contents()))
def test_a_bad_archive_changes_nothing(case, small_cifar, cifar_published, server):
    url, folder, _ = server
    contents, extra, message = bad_archives(cifar_published)[case]
    write_archive(folder / cifar10.ARCHIVE, contents, extra)
    (small_cifar / cifar10.FOLDER / "data_batch_1.bin").write_bytes(b"altered")
    with pytest.raises(FormatError, match=message):
        data.fetch("cifar10", small_cifar, base_url=url)
    assert (small_cifar / cifar10.FOLDER / "data_batch_1.bin").read_bytes() == b"altered"
    assert not list(small_cifar.glob(".fetch-*"))


def test_only_named_members_leave_the_archive(tmp_path):
    path = tmp_path / "archive.tar.gz"
    outside = tarfile.TarInfo("../outside")
    write_archive(path, {"wanted": b"content"}, [outside])
    download.extract(path, {f"{cifar10.FOLDER}/wanted": tmp_path / "out" / "wanted"})
    assert (tmp_path / "out" / "wanted").read_bytes() == b"content"
    assert not (tmp_path.parent / "outside").exists()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["archive.tar.gz", "out"]


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_damaged_archive(damage, tmp_path):
    path = tmp_path / "archive.tar.gz"
    write_archive(path, {"wanted": np.random.default_rng(0).bytes(100_000)})
    path.write_bytes({"truncated": path.read_bytes()[:5000], "text": b"<html>", "empty": b""}[damage])
    with pytest.raises(FormatError, match=r"archive.tar.gz"):
        download.extract(path, {f"{cifar10.FOLDER}/wanted": tmp_path / "wanted"})


# --- augmentation ---------------------------------------------------------------------------------------


def batch(shape=(16, 3, 9, 7), dtype=torch.uint8):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, shape, generator=generator).to(dtype)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def slow_window(image, padding, top, left, flip):
    """One image: pad, crop, mirror, pixel by pixel."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            source_row = row + top - padding
            source_column = (width - 1 - column if flip else column) + left - padding
            if 0 <= source_row < height and 0 <= source_column < width:
                out[:, row, column] = image[:, source_row, source_column]
    return out


def slow_augment(images, kind, generator):
    padding = {"shift": 2, "crop_flip": 4}[kind]
    top, left = torch.randint(2 * padding + 1, (2, len(images)), generator=generator)
    flip = torch.zeros(len(images)) > 0
    if kind == "crop_flip":
        flip = torch.rand(len(images), generator=generator) < 0.5
    return torch.stack(
        [slow_window(image, padding, *where) for image, *where in zip(images, top, left, flip, strict=True)]
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("kind", ["shift", "crop_flip"])
@pytest.mark.parametrize("shape", [(16, 3, 9, 7), (5, 1, 1, 1), (0, 3, 8, 8)])
def test_augment_equals_the_slow_reference(kind, dtype, shape):
    images = batch(shape, dtype)
    result = data.augment(images, kind, seeded())
    assert result.dtype == dtype
    assert result.shape == images.shape
    if len(images):
        assert torch.equal(result, slow_augment(images, kind, seeded()))


def test_augment_kinds_and_errors():
    assert data.kinds() == ["crop_flip", "none", "shift"]
    with pytest.raises(InputError, match=r"unknown augmentation 'crop-flip'. Did you mean 'crop_flip'\?"):
        data.augment(batch(), "crop-flip", seeded())
    with pytest.raises(InputError, match=r"shape \(3, 9, 7\): expected \(batch, channels, height, width\)"):
        data.augment(batch()[0], "shift", seeded())


def test_augment_none_draws_nothing():
    images, generator = batch(), seeded()
    before = generator.get_state()
    assert data.augment(images, "none", generator) is images
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("kind", ["shift", "crop_flip"])
def test_augment_depends_on_the_generator_alone_and_leaves_its_input(kind):
    images = batch()
    original = images.clone()
    torch.manual_seed(0)
    first = data.augment(images, kind, seeded())
    torch.manual_seed(1)
    assert torch.equal(data.augment(images, kind, seeded()), first)
    assert not torch.equal(data.augment(images, kind, seeded(1)), first)
    assert torch.equal(images, original)


def test_augment_draws_every_offset_and_both_mirrors():
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[..., 4, 4] = 255
    image[..., 4, 5] = 128  # on the right of the bright pixel unless mirrored
    shifted = data.augment(image.expand(2000, -1, -1, -1), "shift", seeded())
    assert shifted.view(2000, -1).argmax(1).unique().numel() == 25
    flipped = data.augment(image.expand(2000, -1, -1, -1), "crop_flip", seeded())
    places = (flipped == 255).nonzero()
    assert len({(row, column) for _, _, row, column in places.tolist()}) == 81
    mirrored = flipped.view(2000, 9, 9)[:, :, :-1].eq(128) & flipped.view(2000, 9, 9)[:, :, 1:].eq(255)
    assert 0.4 < mirrored.any((1, 2)).float().mean() < 0.6


def test_augment_takes_channels_last():
    images = batch().to(memory_format=torch.channels_last)
    assert torch.equal(data.augment(images, "shift", seeded()), data.augment(batch(), "shift", seeded()))


def test_normalize():
    images = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)
    expected = torch.tensor([[[[-1.0, 1.0]], [[0.0, 0.4]]]])
    result = data.normalize(images, (0.5, 0.2), (0.5, 0.5))
    assert result.dtype == torch.float32
    assert torch.allclose(result, expected)
    tensors = torch.tensor([0.5, 0.2]), torch.tensor([0.5, 0.5])
    assert torch.equal(data.normalize(images, *tensors), result)


def test_normalize_errors():
    with pytest.raises(InputError, match=r"dtype torch.float32: expected torch.uint8"):
        data.normalize(batch(dtype=torch.float32), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(InputError, match="1 values of mean or std for images of 3 channels"):
        data.normalize(batch(), (0.5,), (0.5,))
    with pytest.raises(InputError, match="expected"):
        data.normalize(batch()[0], (0.5,), (0.5,))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["shift", "crop_flip"])
def test_augment_on_cuda(kind):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images = batch()
    on_device = data.augment(images.cuda(), kind, seeded())
    assert on_device.is_cuda
    assert torch.equal(on_device.cpu(), data.augment(images, kind, seeded()))
    generator = torch.Generator("cuda").manual_seed(0)
    assert data.augment(images.cuda(), kind, generator).is_cuda
