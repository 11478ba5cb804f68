"""Files written so that a failure leaves the old one or a message, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import io
import json
import os
import platform
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unlearnbench.errors import UnwritableError, os_reason


def regular_bytes(path: Path, largest: int) -> bytes:
    """Return the content of a file that foreign code may have put there.

    Args:
        path: File to read. A link is not followed, and nothing is waited for.
        largest: Largest size in bytes.

    Raises:
        OSError: If it is no regular file, too large, or cannot be read.
    """
    # A pipe would be waited for when it is opened, too.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if found.st_size > largest:
            raise OSError(errno.EFBIG, f"{found.st_size:,} bytes, more than {largest:,}", str(path))
        return stream.read(largest)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of a file or folder that it cannot be written, if the system says so meanwhile.

    Raises:
        UnwritableError: If anything within the context raises an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise UnwritableError(
            f"{path}: cannot be written: {os_reason(error)}\n"
            "  Mend that, then run the same command again: it goes on from what is done"
        ) from error


class HeldFile(io.FileIO):
    """A new file for a library that does not survive a write which fails, such as HDF5 or torch's own format.

    A write that fails is held back, and so are all that follow, until the library has closed its file.

    Args:
        path: Path of the file.
    """

    def __init__(self, path: Path) -> None:
        self._error: OSError | None = None
        super().__init__(path, "w+")

    def check(self) -> None:
        """Raise the error that was held back, if there is one."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        """Take all bytes of a buffer, which are lost after an error."""
        left = memoryview(data).cast("B")
        size = len(left)
        with self._holding():
            while left and self._error is None:
                left = left[super().write(left) :]
        return size

    def truncate(self, size: int | None = None) -> int:
        """Change the size, unless there was an error."""
        with self._holding():
            if self._error is None:
                return super().truncate(size)
        return size or 0

    def close(self) -> None:
        """Close the file; some file systems say only now that it is not written."""
        with self._holding():
            super().close()

    @contextlib.contextmanager
    def _holding(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._error = error


@contextlib.contextmanager
def held(path: Path) -> Iterator[HeldFile]:
    """Open a file whose failing writes are held back within the context.

    Raises:
        UnwritableError: If the file could not be written, whatever else went wrong because of that.
    """
    with writing(path):
        file = HeldFile(path)
    try:
        yield file
    finally:
        file.close()
        with writing(path):
            file.check()


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader finds either the old file or the complete new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)


def _sweep(path: Path) -> None:
    """Remove what processes of this machine left behind that ended while they wrote a file."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{_host()}.*.tmp"):
        number = left.name.split(".")[-2]
        if number.isdecimal() and not _lives(int(number)):
            left.unlink(missing_ok=True)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", platform.node())


def _lives(process: int) -> bool:
    if sys.platform == "win32":
        # To ask after a process there is to end it.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
