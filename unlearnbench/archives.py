"""Archives, unpacked without letting them write anywhere but where they are told to."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from unlearnbench.disk_space import require_space
from unlearnbench.errors import DatasetError

# gzip and zip gain little on images, so what comes out is about as large as what went in.
GROWTH = 1.5


def is_archive(path: Path) -> bool:
    """Return whether a file is a tar or zip archive, by its content."""
    return path.is_file() and (tarfile.is_tarfile(path) or zipfile.is_zipfile(path))


def unpacked(paths: Sequence[Path], scratch: Path, say: Callable[[str], None] = lambda message: None) -> list[Path]:
    """Return folders: those given, and one that all given archives are unpacked into together.

    Args:
        paths: Folders and archives.
        scratch: An empty folder for what is unpacked.
        say: Called with a line for each archive.

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
        DatasetError: If it is damaged, or holds a path that leads out of the folder, or the disk is full.
    """
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        else:
            with zipfile.ZipFile(archive) as compressed:
                compressed.extractall(folder)
    except tarfile.FilterError as error:
        raise DatasetError(f"{archive}: refused: {error}") from error
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DatasetError(f"{archive}: damaged archive: {error}") from error
    except OSError as error:
        raise DatasetError(f"{archive}: cannot be unpacked to {folder}: {error.strerror or error}") from error
