"""Downloads: resumed where they were cut, checked when they are whole."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from unlearnbench import __version__
from unlearnbench.catalogue import Download, PublishedWeights, weights_folder
from unlearnbench.disk_space import require_space
from unlearnbench.errors import DatasetError

BLOCK_BYTES = 1 << 18
TIMEOUT_SECONDS = 60.0
ATTEMPTS = 5
PAUSE_SECONDS = 1.0

Progress = Callable[[int, int | None], None]


def fetch(download: Download, folder: Path, progress: Progress = lambda done, total: None) -> Path:
    """Return a downloaded file; what is there of it already is not downloaded again.

    The file grows under the name `NAME.part`, also over several calls, and takes its name when its checksum is
    right. A connection that breaks is taken up again where it broke.

    Args:
        download: What to fetch.
        folder: Where to; made if missing.
        progress: Called with the bytes there are and their number in all (None if unknown).

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
            raise DatasetError(f"{part}: cannot be written: {error.strerror or error}") from error
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
    """Append to `part` what is missing of a file, as far as the connection holds."""
    there = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"unlearnbench/{__version__}", **({"Range": f"bytes={there}-"} if there else {})}
    request = urllib.request.Request(download.url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # All of it is there already; the checksum will tell.
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


def fetch_weights(published: PublishedWeights, progress: Progress = lambda done, total: None) -> Path:
    """Return a checkpoint of published weights in the data folder, downloaded now.

    Raises:
        DatasetError: As `fetch`, or if the archive does not hold the checkpoint.
    """
    folder = weights_folder()
    if not published.url.endswith(".zip"):
        download = Download(published.url, published.size, published.algorithm, published.checksum)
        return fetch(download, folder, progress)
    # The archive itself has no published checksum: the one of the checkpoint within it counts.
    archive = fetch(Download(published.url, None, "sha1", ""), folder, progress)
    try:
        with zipfile.ZipFile(archive) as compressed:
            content = compressed.read(published.file_name)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DatasetError(f"{published.url}: not an archive with {published.file_name}: {error}") from error
    finally:
        archive.unlink()
    found = hashlib.new(published.algorithm, content).hexdigest()
    if not found.startswith(published.checksum):
        raise DatasetError(
            f"{published.url}: wrong checksum of {published.file_name}: {published.algorithm} {found}, "
            f"not {published.checksum}"
        )
    temporary = folder / f"{published.file_name}.part"
    temporary.write_bytes(content)
    return temporary.replace(folder / published.file_name)
