"""Downloads with checksums, through pooch: nothing half-written is left, nothing unexpected is unpacked."""

import gzip
import logging
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pooch

from equibit.errors import FileError, FormatError

_CHUNK_BYTES = 1 << 16
_TIMEOUT_SECONDS = 30
_MAX_MEMBER_BYTES = 1 << 28  # far above any file expected here: a damaged header may claim anything


def file(
    base_url: str, name: str, folder: Path, *, known_hash: str | None, belongs: Path, progress: Any = False
) -> Path:
    """Download `base_url`/`name` to `folder`/`name`, unless it is there already with the known checksum.

    Args:
        base_url: the address up to the file name.
        name: the file name.
        folder: created if needed.
        known_hash: "md5:..." or "sha1:..."; None if the caller checks the content.
        belongs: the folder of the published files, to name in an error.
        progress: False, True (needs tqdm), or an object as pooch takes it (`total`, `update`, `reset`,
            `close`).

    Raises:
        FileError: the address cannot be reached or the file not written; says where to put the files by hand.
        FormatError: the downloaded content has another checksum; nothing is kept.
    """
    url = f"{base_url.rstrip('/')}/{name}"
    downloader = pooch.HTTPDownloader(progressbar=progress, chunk_size=_CHUNK_BYTES, timeout=_TIMEOUT_SECONDS)
    try:
        with _quiet_pooch():
            return Path(pooch.retrieve(url, known_hash, name, folder, downloader=downloader))
    except OSError as error:  # requests' errors are OSErrors too
        _close_response(error)
        raise FileError(
            f"cannot download {url} ({_reason(error)}). Without a network, put the published files into "
            f"{belongs}, or set EQUIBIT_DATA to the folder that holds the data sets."
        ) from error
    except ValueError as error:
        raise FormatError(f"{url} is not the published file: its checksum differs. Nothing was kept.") from error


def _close_response(error: OSError) -> None:
    """Close the connection that an HTTP error still holds, so that no socket outlives the call."""
    response = getattr(error, "response", None)
    if response is not None:
        response.close()


def _reason(error: OSError) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """The library never prints, and pooch's logger does."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """A temporary folder on the same file system as `root`, so that files move into place in one step.

    Raises:
        FileError: something cannot be written, here or in the body of the `with` statement.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as folder:
            yield Path(folder)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"cannot write below {root}: {error.strerror or error}.") from error


def extract(archive: Path, members: Mapping[str, Path]) -> None:
    """Unpack exactly the named regular files of a .tar.gz, each to its given path; nothing else is written.

    The content of the files is not verified here: compare their checksums.

    Raises:
        FormatError: the archive is damaged, a member is missing, not a regular file, or implausibly large.
    """
    missing = dict(members)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.name in missing:
                    _write_member(tar, member, missing.pop(member.name))
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FormatError(f"{archive.name}: found a damaged archive ({error}), expected a whole .tar.gz.") from error
    if missing:
        raise FormatError(f"{archive.name}: expected the files {', '.join(missing)}, which it does not hold.")


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(member) if member.isreg() else None
    if source is None or member.size > _MAX_MEMBER_BYTES:
        raise FormatError(
            f"{member.name} in the archive: found {member.size:,} bytes and type {member.type!r}, expected "
            f"a regular file of at most {_MAX_MEMBER_BYTES:,} bytes."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)
