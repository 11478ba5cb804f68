"""Paths below a folder, which nothing from outside may lead out of, and pages that must not replace a stranger's."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from unlearnbench.errors import InvalidFileError, StoreError, UnlearnBenchError, os_reason


def refuse_foreign(folder: Path, pages: Iterable[str], ours: Collection[str]) -> None:
    """Refuse to write pages over files that somebody else wrote.

    Args:
        folder: Folder that the pages go to.
        pages: Names of the pages.
        ours: Texts of which every page of ours holds one.

    Raises:
        StoreError: If a page cannot be read.
        UnlearnBenchError: If a page exists and holds none of them.
    """
    for name in pages:
        path = folder / name
        try:
            text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {os_reason(error)}") from error
        if text is not None and not any(mark in text for mark in ours):
            raise UnlearnBenchError(
                f"{path} was not written by this command and would be replaced\n"
                "  Name another folder with -o, or move it away"
            )


def below(folder: Path, place: str | Path) -> Path:
    """Return a path below a folder.

    Args:
        folder: Folder that the path must not leave.
        place: Path relative to it.

    Raises:
        InvalidFileError: If the path, with links and `..` followed, does not lie below the folder.
    """
    path = folder / place
    try:
        inside = folder.resolve() in path.resolve().parents
    # These are a loop of links, a path that is too long, and one with a zero byte.
    except (OSError, RuntimeError, ValueError):
        inside = False
    if not inside:
        raise InvalidFileError(f"{folder}: {str(place)!r} leads out of this folder")
    return path
