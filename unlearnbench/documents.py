"""Text and JSON files from outside, read within bounds: no file takes more than a second or much memory to refuse."""

from __future__ import annotations

import json
import lzma
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unlearnbench.errors import InvalidFileError, unreadable

LARGEST_BYTES = 2**25
XZ = ".xz"
# What `compressed` gives needs less than a tenth of it, whereas a file from outside may ask for gigabytes.
DECOMPRESSING_BYTES = 2**27
# These are far above what records hold: the largest file on the leaderboard has 2.4 MB and 113,501 values in 6 levels.
MOST_VALUES = 1_000_000
MOST_LEVELS = 32
LARGEST_INTEGER = 2**64
# Only a text with one of these, or one that is not ASCII, can hold half of a character or a number of so many digits.
_SUSPECT = re.compile(r"\\u[dD][89a-fA-F]|[0-9]{20}")


def read_text(path: Path, largest: int = LARGEST_BYTES) -> str:
    """Return the text of a file, which is decompressed if its name ends in `.xz`.

    Args:
        path: File to read.
        largest: Largest size of the text in bytes; of a compressed file no more than that is decompressed.

    Raises:
        InvalidFileError: If the file cannot be read, is too large, or is not UTF-8 text.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InvalidFileError(f"{path}: cannot be read: not a file")
        with path.open("rb") as stream:
            content = stream.read(largest + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if path.suffix == XZ:
        content = _decompressed(path, content, largest + 1)
    if len(content) > largest:
        raise InvalidFileError(f"{path}: has more than the {largest:,} bytes that are read of such a file")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidFileError(f"{path}: not UTF-8 text (byte {error.start})") from error


def _decompressed(path: Path, content: bytes, largest: int) -> bytes:
    try:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DECOMPRESSING_BYTES)
        found = stream.decompress(content, largest)
    except lzma.LZMAError as error:
        raise InvalidFileError(f"{path}: cannot be decompressed: {error}") from error
    if len(found) < largest and not stream.eof:
        raise InvalidFileError(f"{path}: cannot be decompressed: its end is missing")
    return found


def compressed(text: str) -> bytes:
    """Return what a file whose name ends in `.xz` holds of a text."""
    return lzma.compress(text.encode())


def check_size(text: str) -> None:
    """Check that a JSON text, or several in lines, does not hold so many values that they would fill the memory.

    Raises:
        ValueError: If it does.
    """
    if sum(text.count(mark) for mark in ",[{") > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values")


def parsed_json(text: str) -> Any:
    """Return the values of a JSON text.

    Raises:
        ValueError: If the text is not JSON, or exceeds the bounds; the message is one line.
    """
    check_size(text)
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep") from None
    except json.JSONDecodeError:
        raise
    # Python refuses to read an integer of thousands of digits.
    except ValueError as error:
        raise ValueError("it holds a number of too many digits") from error
    for fault in _excesses(text, values):
        raise ValueError(fault)
    return values


def read_json(path: Path) -> Any:
    """Return the values of a JSON file.

    Raises:
        InvalidFileError: If the file cannot be read, is not JSON, or exceeds the bounds.
    """
    text = read_text(path)
    try:
        return parsed_json(text)
    except ValueError as error:
        raise InvalidFileError(f"{path}: not a whole JSON file: {error}") from error


def _excesses(text: str, values: Any) -> Iterator[str]:
    """Yield what in a JSON text and its values goes beyond the bounds."""
    layer, level = [values], 0
    while layer := [value for value in layer if isinstance(value, dict | list)]:
        level += 1
        if level > MOST_LEVELS:
            yield f"it is nested more than {MOST_LEVELS} levels deep"
        layer = [inner for value in layer for inner in (value.values() if isinstance(value, dict) else value)]
    if not text.isascii() or _SUSPECT.search(text):
        yield from _bad_leaves(values)


def _bad_leaves(values: Any) -> Iterator[str]:
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
                yield "it holds half of a character (a lone surrogate)"
        elif isinstance(value, int) and abs(value) >= LARGEST_INTEGER:
            yield f"it holds a number of {int(math.log10(abs(value))) + 1} digits"
