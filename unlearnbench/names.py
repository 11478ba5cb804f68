"""Names that come from outside and become paths, and the one way to open a path below a folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from unlearnbench.errors import InvalidFileError, StoreError, os_reason

LONGEST_NAME = 120
_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"

# Every string from outside that is a part of a path has this type, and is checked where it is read.
Name = Annotated[str, Field(pattern=f"^{_NAME}$", max_length=LONGEST_NAME)]
# The path of a file below a folder consists of such names.
Place = Annotated[str, Field(pattern=f"^{_NAME}(/{_NAME})*$", max_length=4 * LONGEST_NAME)]
# That of a file of the store, below an output folder, begins with the store.
StorePlace = Annotated[str, Field(pattern=f"^store(/{_NAME})+$", max_length=4 * LONGEST_NAME)]
# A label is text for readers, escaped wherever it goes; in a path the name that `label_slug` gives stands for it.
Label = Annotated[str, Field(min_length=1, max_length=200)]


def refuse_foreign(folder: Path, pages: Iterable[str], ours: Collection[str]) -> None:
    """Refuse to write pages over files that somebody else wrote.

    Args:
        folder: Folder that the pages go to.
        pages: Names of the pages.
        ours: Texts of which every page of ours holds one.

    Raises:
        StoreError: If a page exists and holds none of them.
    """
    for name in pages:
        path = folder / name
        try:
            text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {os_reason(error)}") from error
        if text is not None and not any(mark in text for mark in ours):
            raise StoreError(
                f"{path} was not written by unlearnbench and would be replaced\n"
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
