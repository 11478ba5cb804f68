"""Downloads that resume where they broke off and are checked once they are complete."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import lzma
import os
import struct
import tarfile
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearnbench import __version__
from unlearnbench.errors import DatasetError, os_reason
from unlearnbench.escape import one_line
from unlearnbench.machine import require_space

BLOCK_BYTES = 1 << 18
TIMEOUT_SECONDS = 60.0
ATTEMPTS = 5
PAUSE_SECONDS = 1.0

Progress = Callable[[int, int | None], None]


def fetch(download: Download, folder: Path, progress: Progress = lambda done, total: None) -> Path:
    """Return a downloaded file; the part of it that is there already is not downloaded again.

    The file grows under the name `NAME.part`, if need be over several calls, and takes its final name once its
    checksum is right. A broken connection is resumed at the same byte.

    Args:
        download: File to fetch.
        folder: Folder to put it into, created if missing.
        progress: Callback that receives the bytes there are and their total (None if unknown).

    Raises:
        DatasetError: If the server cannot be reached or refuses, the disk is full, or the checksum is wrong.
    """
    whole, part = folder / download.file_name, folder / f"{download.file_name}.part"
    if whole.is_file() and _checksum_fits(whole, download):
        return whole
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        there = part.stat().st_size if part.exists() else 0
        try:
            _fetch_rest(download, part, progress)
            break
        except urllib.error.HTTPError as error:
            raise DatasetError(f"{download.url}: the server answers {error.code} {error.reason}") from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            grown = part.exists() and part.stat().st_size > there
            if attempt == ATTEMPTS - 1 or not (grown or there):
                reason = getattr(error, "reason", None) or error
                raise DatasetError(
                    f"{download.url}: the connection failed: {reason}\n  The same command goes on from where it stopped"
                ) from error
            time.sleep(PAUSE_SECONDS)
        except OSError as error:
            raise DatasetError(f"{part}: cannot be written: {os_reason(error)}") from error
    if not _checksum_fits(part, download):
        found = _digest(part, download.algorithm)
        part.unlink()
        raise DatasetError(
            f"{download.url}: wrong checksum: {download.algorithm} {found}, not {download.checksum}\n"
            "  The file was removed. "
            "Fetch it again; if it happens twice, the publisher has changed the file"
        )
    part.replace(whole)
    return whole


def _fetch_rest(download: Download, part: Path, progress: Progress) -> None:
    """Append the missing bytes of a file to `part`, for as long as the connection holds."""
    there = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"unlearnbench/{__version__}", **({"Range": f"bytes={there}-"} if there else {})}
    request = urllib.request.Request(download.url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # The whole file is there already; the checksum will tell.
        raise
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        there = there if resumed else 0
        length = response.headers.get("Content-Length")
        total = there + int(length) if length else download.size
        require_space(part.parent, (total or 0) - there, download.file_name)
        with part.open("ab" if resumed else "wb") as file:
            while block := response.read(BLOCK_BYTES):
                file.write(block)
                there += len(block)
                progress(there, total)
    if total is not None and there < total:
        raise ConnectionError(f"it ended after {there:,} of {total:,} bytes")


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _checksum_fits(path: Path, download: Download) -> bool:
    return _digest(path, download.algorithm).startswith(download.checksum)


# gzip and zip gain little on images, so that the unpacked files are about as large as the archive.
GROWTH = 1.5
# What unpacks to more than this many times its size, and to more than 64 MiB, is no archive of images.
LARGEST_GROWTH = 10
ALWAYS_UNPACKED = 2**26


def is_archive(path: Path) -> bool:
    """Return whether a file is a tar or zip archive, judged by its content."""
    return path.is_file() and (tarfile.is_tarfile(path) or zipfile.is_zipfile(path))


def unpacked(paths: Sequence[Path], scratch: Path, say: Callable[[str], None] = lambda message: None) -> list[Path]:
    """Return the given folders, and one folder that all given archives are unpacked into.

    Args:
        paths: Folders and archives.
        scratch: Empty folder to unpack into.
        say: Callback that receives a line for each archive.

    Raises:
        DatasetError: If a path is missing or neither, an archive is damaged or unsafe, or the disk is full.
    """
    for path in paths:
        if not path.exists():
            raise DatasetError(f"{path}: no such file or folder")
        if not path.is_dir() and not is_archive(path):
            raise DatasetError(f"{path}: neither a folder nor a tar or zip archive")
    archives = [path for path in paths if not path.is_dir()]
    require_space(scratch, int(GROWTH * sum(path.stat().st_size for path in archives)), "unpacking")
    for path in archives:
        say(f"unpacking {path}")
        unpack(path, scratch)
    return [*(path for path in paths if path.is_dir()), *([scratch] if archives else [])]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive.

    Raises:
        DatasetError: If the archive is damaged or encrypted, holds a path that leads out of the folder, or unpacks to
            far more than its own size, or if the disk is full.
    """
    try:
        if tarfile.is_tarfile(archive):
            _unpack_tar(archive, folder)
        else:
            _unpack_zip(archive, folder)
    except tarfile.FilterError as error:
        raise DatasetError(f"{archive}: refused: {error}") from error
    except (gzip.BadGzipFile, *_DAMAGES) as error:
        raise DatasetError(f"{archive}: damaged archive: {one_line(str(error))}") from error
    # zipfile says so of a compression that it does not know.
    except RuntimeError as error:
        raise DatasetError(f"{archive}: cannot be unpacked: {error}") from error
    except OSError as error:
        raise DatasetError(f"{archive}: cannot be unpacked to {folder}: {os_reason(error)}") from error


_DAMAGES = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, ValueError)


class _Allowance:
    """The number of bytes that an archive may still unpack to."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._bytes = max(ALWAYS_UNPACKED, LARGEST_GROWTH * archive.stat().st_size)

    def take(self, size: int) -> None:
        """Take the size of a file away.

        Raises:
            DatasetError: If less is left.
        """
        self._bytes -= size
        if self._bytes < 0:
            raise DatasetError(
                f"{self._archive}: refused: it unpacks to more than {LARGEST_GROWTH} times its size\n"
                "  If it is to be trusted, unpack it yourself and add the folder"
            )


def _unpack_tar(archive: Path, folder: Path) -> None:
    allowance = _Allowance(archive)

    def allowed(member: tarfile.TarInfo, place: str) -> tarfile.TarInfo:
        # The size stands before the content, which is then not even decompressed.
        allowance.take(member.size)
        return tarfile.data_filter(member, place)

    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter=allowed)


def _unpack_zip(archive: Path, folder: Path) -> None:
    allowance = _Allowance(archive)
    with zipfile.ZipFile(archive) as compressed:
        for member in compressed.infolist():
            allowance.take(member.file_size)
            if member.flag_bits & 1:
                raise DatasetError(f"{archive}: it is encrypted; unpack it yourself and add the folder")
        compressed.extractall(folder)


@dataclass(frozen=True)
class Download:
    """A file on the web.

    Attributes:
        url: Address of the file.
        size: Size in bytes; None if the publisher does not state it.
        algorithm: Hash algorithm: `md5`, `sha1` or `sha256`.
        checksum: Hexadecimal digits of the hash; the first of them are enough for SHA-256.
    """

    url: str
    size: int | None
    algorithm: str
    checksum: str

    @property
    def file_name(self) -> str:
        """Name of the file."""
        return self.url.partition("?")[0].rpartition("/")[2]


def is_there(file: Path) -> bool:
    """Return whether a file of the data folder exists.

    Raises:
        DatasetError: If a folder on the way to it cannot be read.
    """
    try:
        return file.is_file()
    except OSError as error:
        closed = next((place for place in reversed(file.parents) if not os.access(place, os.X_OK)), file.parent)
        raise DatasetError(
            f"{closed}: cannot be read: {os_reason(error)}\n  Set UNLEARNBENCH_DATA to another folder"
        ) from error
