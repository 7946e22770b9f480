"""Downloads, from a local server."""

import http.server
import io
import tarfile
import threading

import numpy as np
import pytest
from small_data import IDX_NAMES, TEST, TRAIN, cifar_contents, cifar_records

from equibit import data
from equibit.data import download
from equibit.data.cifar import CIFAR10, CIFAR100
from equibit.data.mnist import MNIST
from equibit.errors import FileError, FormatError

IMAGES = IDX_NAMES[0]


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
    assert [path.name for path in paths] == [file.name for file in MNIST.published]
    assert len(data.load("mnist", root).train_images) == TRAIN
    assert len(requests) == 4
    assert data.fetch("mnist", root, base_url=url) == paths
    assert len(requests) == 4  # nothing is downloaded twice
    assert capfd.readouterr() == ("", "")


def test_fetch_fashion_mnist(small_fashion, server, tmp_path):
    url, folder, requests = server
    for path in (small_fashion / "fashion-mnist").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    paths = data.fetch("fashion_mnist", tmp_path / "new", base_url=url)
    assert {path.parent for path in paths} == {tmp_path / "new" / "fashion-mnist"}
    assert len(data.load("fashion_mnist", tmp_path / "new").test_images) == TEST
    assert sorted(requests) == sorted(f"/{name}" for name in IDX_NAMES)


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


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "mnist"),
        ("fashion_mnist", "fashion-mnist"),
        ("cifar10", CIFAR10.folder),
        ("cifar100", CIFAR100.folder),
    ],
)
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


def write_archive(path, contents, extra=(), folder=CIFAR10.folder):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member)


def test_fetch_cifar(cifar_published, server, tmp_path, capfd):
    url, folder, requests = server
    write_archive(folder / CIFAR10.archive, cifar_published | {"readme.html": b"<html>"})
    root = tmp_path / "new"
    paths = data.fetch("cifar10", root, base_url=url)
    assert sorted(path.name for path in paths) == sorted(cifar_published)
    assert sorted(path.name for path in root.rglob("*")) == sorted([CIFAR10.folder, *cifar_published])
    assert len(data.load("cifar10", root).train_images) == 5 * TRAIN
    assert data.fetch("cifar10", root, base_url=url) == paths
    assert len(requests) == 1
    assert capfd.readouterr() == ("", "")


def test_fetch_cifar100(small_cifar100, server, tmp_path):
    url, folder, requests = server
    contents = {path.name: path.read_bytes() for path in (small_cifar100 / CIFAR100.folder).iterdir()}
    write_archive(folder / CIFAR100.archive, contents, folder=CIFAR100.folder)
    paths = data.fetch("cifar100", tmp_path / "new", base_url=url)
    assert [path.name for path in paths] == ["train.bin", "test.bin", "fine_label_names.txt"]
    assert len(data.load("cifar100", tmp_path / "new").train) == TRAIN
    assert requests == ["/cifar-100-binary.tar.gz"]


def test_fetch_cifar_replaces_a_shorter_test_file(small_cifar, cifar_published, server):
    url, folder, _ = server
    write_archive(folder / CIFAR10.archive, cifar_published)
    (small_cifar / CIFAR10.folder / "test_batch.bin").write_bytes(cifar_records(1).tobytes())
    data.fetch("cifar10", small_cifar, base_url=url)
    assert len(data.load("cifar10", small_cifar).test_images) == TEST


def bad_archives(contents):
    link = tarfile.TarInfo(f"{CIFAR10.folder}/test_batch.bin")
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
    write_archive(folder / CIFAR10.archive, contents, extra)
    (small_cifar / CIFAR10.folder / "data_batch_1.bin").write_bytes(b"altered")
    with pytest.raises(FormatError, match=message):
        data.fetch("cifar10", small_cifar, base_url=url)
    assert (small_cifar / CIFAR10.folder / "data_batch_1.bin").read_bytes() == b"altered"
    assert not list(small_cifar.glob(".fetch-*"))


def test_only_named_members_leave_the_archive(tmp_path):
    path = tmp_path / "archive.tar.gz"
    outside = tarfile.TarInfo("../outside")
    write_archive(path, {"wanted": b"content"}, [outside])
    download.extract(path, {f"{CIFAR10.folder}/wanted": tmp_path / "out" / "wanted"})
    assert (tmp_path / "out" / "wanted").read_bytes() == b"content"
    assert not (tmp_path.parent / "outside").exists()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["archive.tar.gz", "out"]


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_damaged_archive(damage, tmp_path):
    path = tmp_path / "archive.tar.gz"
    write_archive(path, {"wanted": np.random.default_rng(0).bytes(100_000)})
    path.write_bytes({"truncated": path.read_bytes()[:5000], "text": b"<html>", "empty": b""}[damage])
    with pytest.raises(FormatError, match=r"archive.tar.gz"):
        download.extract(path, {f"{CIFAR10.folder}/wanted": tmp_path / "wanted"})
