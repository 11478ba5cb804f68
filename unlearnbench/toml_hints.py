"""What to say of a text that is not TOML, beside what the parser says."""

from __future__ import annotations

import re
from collections.abc import Collection

import tomli


def toml_hint(text: str, error: tomli.TOMLDecodeError, lists: Collection[str]) -> str:
    """Return a line on how to mend a text that is not TOML, "" where there is nothing to say.

    Args:
        text: The whole text.
        error: What tomli says of it.
        lists: Keys of lists of tables, whose headers stand in double brackets.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    line = lines[error.lineno - 1]
    if error.msg == "Invalid value":
        return _value_hint(line[error.colno - 1 :])
    if error.msg.startswith("Cannot"):
        return _twice_hint(lines[: error.lineno - 1], line, lists)
    return ""


def _value_hint(rest: str) -> str:
    """Return how what stands behind an equals sign or in an array is written in TOML."""
    word = re.split(r"[,\]}#]", rest)[0].strip()
    if not word:
        return "\n  A value is missing there"
    if word.lower() in {"true", "false"}:
        return f"\n  Write {word.lower()}"
    if not re.match(r"[A-Za-z_/~]", word):
        return ""
    # Single quotes keep backslashes as they are.
    quote = "'" if "\\" in word else '"'
    return f"\n  Text stands in quotes: {quote}{word}{quote}"


def _twice_hint(before: list[str], line: str, lists: Collection[str]) -> str:
    """Return where a key or table that stands twice stood first."""
    table = line.lstrip().startswith("[")
    said = _said(line)
    if table and said.strip("[] ") in lists:
        return f"\n  Each entry begins with [[{said.strip('[] ')}]]"
    for number in range(len(before), 0, -1):
        if said and _said(before[number - 1]) == said:
            return f"\n  {said} stands in line {number} already; keep one"
        if not table and before[number - 1].lstrip().startswith("["):
            break
    return ""


def _said(line: str) -> str:
    """Return the header or the key of a line."""
    text = line.partition("#")[0]
    return text.strip() if text.lstrip().startswith("[") else text.partition("=")[0].strip()
