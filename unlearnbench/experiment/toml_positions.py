"""The positions of keys and values in a TOML file, so that a message can name the line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

KeyPath = tuple[str | int, ...]
# Tables and arrays may lie in each other this deep, many times as deep as a manifest needs.
MOST_LEVELS = 32

_KEY = r"(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')"
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[|\[)\s*({_DOTTED})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_DOTTED})\s*=")
# Comments and strings are matched with the longest opening first; only the first two kinds of string can span lines.
_TEXT = re.compile(
    r"""#[^\n]*|\"{3}(?:\\.|[^\\])*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""",
    re.DOTALL,
)
_INLINE = re.compile(rf"[{{,]\s*({_DOTTED})\s*=")


def _parts(dotted: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in re.findall(_KEY, dotted))


def _without_content(text: re.Match[str]) -> str:
    """Return a multi-line string with its content removed but all its lines kept, and other text as it is."""
    found = text[0]
    return '""' + "\n" * found.count("\n") if found.startswith(('"""', "'''")) else found


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, counted from 1, of every table and key, including keys of inline tables.

    Args:
        text: TOML document that parses.
    """
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(_TEXT.sub(_without_content, text).split("\n"), start=1):
        if header := _HEADER.match(line):
            table = ()
            parts = _parts(header[2])
            for position, part in enumerate(parts, start=1):
                table = (*table, part)
                if header[1] == "[[" and position == len(parts):
                    counts[table] = counts.get(table, -1) + 1
                if table in counts:
                    lines.setdefault(table, number)
                    table = (*table, counts[table])
                lines.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            path = (*table, *_parts(assignment[1]))
            for length in range(len(table) + 1, len(path) + 1):
                lines.setdefault(path[:length], number)
            for inline in _INLINE.finditer(line, assignment.end()):
                lines.setdefault((*path, *_parts(inline[1])), number)
    return lines


def line_of(path: KeyPath, lines: dict[KeyPath, int]) -> int:
    """Return the line of a key, of the nearest table above it, or 1."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


def leaves(raw: dict[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    """Yield each value that is neither a table nor an array with its path, and any at all that lies too deep."""
    waiting: list[tuple[KeyPath, Any]] = [((), raw)]
    while waiting:
        path, value = waiting.pop()
        if not isinstance(value, dict | list) or len(path) > MOST_LEVELS:
            yield path, value
            continue
        items = value.items() if isinstance(value, dict) else enumerate(value)
        waiting.extend(((*path, name), inner) for name, inner in items)
