"""The positions of keys in a TOML file, so that a message can name the line."""

from __future__ import annotations

import re

KeyPath = tuple[str | int, ...]
MOST_LEVELS = 32

_KEY = r"(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')"
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[|\[)\s*({_DOTTED})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_DOTTED})\s*=")
# Comments and strings are matched with the longest opening first; only the first two kinds of string can span lines.
# What is not closed reaches to the end, so that no text takes long.
_TEXT = re.compile(
    r"""#[^\n]*|\"{3}(?:\\.|[^\\])*?(?:\"{3}|\Z)|'{3}.*?(?:'{3}|\Z)|"(?:\\.|[^"\\\n])*(?:"|$)|'[^'\n]*(?:'|$)""",
    re.DOTALL | re.MULTILINE,
)
_BARE = r'(?:[A-Za-z0-9_-]+|"")'
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-]){_BARE}(?:[ \t]*\.[ \t]*{_BARE}){{{MOST_LEVELS},}}")
_INLINE = re.compile(rf"[{{,]\s*({_DOTTED})\s*=")


def _parts(dotted: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in re.findall(_KEY, dotted))


def _without_content(text: re.Match[str]) -> str:
    """Return a multi-line string with its content removed but all its lines kept, and other text as it is."""
    found = text[0]
    return '""' + "\n" * found.count("\n") if found.startswith(('"""', "'''")) else found


def nested_too_deep(text: str) -> int | None:
    """Return the line where a text nests tables and arrays more than `MOST_LEVELS` deep, or None if none does.

    A parser would recurse there, or take a time that grows with the square of the length of a key.
    """
    bare = _TEXT.sub(lambda found: '""' + "\n" * found[0].count("\n") if found[0][0] != "#" else "", text)
    level = 0
    for bracket in re.finditer(r"[\[{\]}]", bare):
        level += 1 if bracket[0] in "[{" else -1
        if level > MOST_LEVELS:
            return bare.count("\n", 0, bracket.start()) + 1
    key = _LONG_KEY.search(bare)
    return None if key is None else bare.count("\n", 0, key.start()) + 1


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
