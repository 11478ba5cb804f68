"""A fence around a process that runs foreign code, which reaches no file of the benchmark but its own, and no process.

The fence is Linux's Landlock, which a process of any user can put around itself and cannot take down again. Landlock
knows only what is allowed, so that everything is allowed but what lies in the closed folders, and files that lie
directly in a folder above one of these must have been there before. Elsewhere there is no fence.

Source: https://docs.kernel.org/userspace-api/landlock.html. The package of that name on PyPI is an alpha version that
does not know scopes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unlearnbench.engine.processes.credentials import is_there

# System call numbers, which are the same on all processors.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_NO_NEW_PRIVS = 38
_VERSION = 1
_BELOW = 1
_FILE = 1 << 1 | 1 << 2  # write and read a file
_FOLDER = sum(1 << bit for bit in range(4, 13))  # remove and make entries of each kind
_MOVE, _TRUNCATE = 1 << 13, 1 << 14
_SIGNALS = 1 << 1
# Versions of Landlock from which it knows each of these.
_MOVE_SINCE, _TRUNCATE_SINCE, _SIGNALS_SINCE = 2, 3, 6


@dataclass(frozen=True)
class Fence:
    """What is closed to a process.

    Attributes:
        closed: Folders, and files, of which it can read and write nothing; those that are missing are left out.
        own: Folder within them that is open to it, with a place for temporary files.
    """

    closed: tuple[Path, ...]
    own: Path


class _Rules(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Place(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def landlock() -> int:
    """Return the version of Landlock that this system has; 0 if it has none."""
    if sys.platform != "linux":
        return 0
    return max(0, _call(_CREATE, None, 0, _VERSION))


def close_in(fence: Fence) -> bool:
    """Put a fence around this process and all that it starts, and return whether the system can do so.

    Temporary files go to the process's own folder from here on.
    """
    temporary = fence.own / "tmp"
    temporary.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    version = landlock()
    if not version:
        return False
    file = _FILE | (_TRUNCATE if version >= _TRUNCATE_SINCE else 0)
    folder = file | _FOLDER | (_MOVE if version >= _MOVE_SINCE else 0)
    rules = _Rules(folder, 0, _SIGNALS)
    # An older system knows only the first members of the structure.
    size = ctypes.sizeof(_Rules) if version >= _SIGNALS_SINCE else 8
    number = _call(_CREATE, ctypes.byref(rules), size, 0)
    if number < 0:
        return False
    for path, is_folder in _open_places([path.resolve() for path in fence.closed if is_there(path)]):
        _allow(number, path, folder if is_folder else file)
    _allow(number, fence.own, folder)
    libc = ctypes.CDLL(None, use_errno=True)
    closed = libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and _call(_RESTRICT, number, 0) == 0
    os.close(number)
    return closed


def _open_places(closed: list[Path]) -> Iterator[tuple[Path, bool]]:
    """Give the paths that together hold everything but the closed folders, each with whether it is a folder."""
    # Of a folder that is closed as a whole, nothing is opened because something within it is closed too.
    closed = [path for path in closed if not any(parent in closed for parent in path.parents)]
    above = {parent for path in closed for parent in path.parents}
    for folder in above or {Path("/")}:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                path = Path(entry.path)
                # What a link leads to is allowed or closed where it lies.
                if path not in above and path not in closed and not entry.is_symlink():
                    yield path, entry.is_dir(follow_symlinks=False)


def _allow(rules: int, path: Path, rights: int) -> None:
    """Allow rights on a path and everything below it."""
    with contextlib.suppress(OSError):
        number = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _call(_ADD, rules, _BELOW, ctypes.byref(_Place(rights, number)), 0)
        finally:
            os.close(number)


def _call(number: int, *arguments: object) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    return result
