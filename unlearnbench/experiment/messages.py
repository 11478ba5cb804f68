"""Messages for manifests whose values are not of the form that they should have."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Collection
from typing import Any

import tomli
from pydantic import BaseModel

from unlearnbench.errors import did_you_mean
from unlearnbench.experiment.toml_positions import KeyPath

# These say what is wrong with a value, in TOML's terms, for each type of error that pydantic reports.
_WORDS = {
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "string_type": "is not a string",
    "bool_type": "is not true or false",
    "tuple_type": "is not an array",
    "list_type": "is not an array",
    "dict_type": "is not a table",
    "model_type": "is not a table",
    "too_short": "is empty; it needs at least one value",
}

# These are lists of tables, in which each entry has a header of its own.
LISTS = ("unlearners", "metrics")


def fault_of(raw: Any, annotation: Any, path: KeyPath, detail: dict[str, Any]) -> tuple[KeyPath, str]:
    """Return where in the file an error that pydantic found is, and what to say about it.

    Args:
        raw: Whole file as TOML gave it.
        annotation: Type of the top-level key that `path` begins with.
        path: Where pydantic found the error, from the top-level key on.
        detail: What pydantic says about it.

    Returns:
        The path of the key in the file, and the message.
    """
    section = _section_at(annotation, path[1:-1])
    if detail["type"] == "extra_forbidden" and section is not None:
        message = f"unknown key{did_you_mean(str(path[-1]), section.model_fields)}"
        if "options" in section.model_fields:
            message += f"\n  Options of the plugin stand in options = {{ {path[-1]} = ... }}"
        return path, message
    if detail["type"] == "missing":
        return path, "missing"
    value = raw
    known: KeyPath = ()
    # pydantic adds the name of the type that a union tried to the path, and that part is not in the file.
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            break
        known = (*known, part)
    if detail["type"] == "string_pattern_mismatch":
        allowed = detail["ctx"]["pattern"].rpartition("[")[2].partition("]")[0].removeprefix("A-Za-z0-9")
        message = f"is not a name: a letter or digit, then letters, digits and {allowed!r} are allowed"
    else:
        message = _WORDS.get(detail["type"]) or detail["msg"].replace("Input should", "should")
    if message == "is not an array":
        message += _array_hint(known, value)
    return known, f"{_shown(value)} {message}"


def _array_hint(path: KeyPath, value: Any) -> str:
    """Return how the single value at `path` is written as an array."""
    if isinstance(value, dict):
        return f"\n  Each entry begins with [[{path[0]}]]" if path[0] in LISTS and len(path) == 1 else ""
    return "" if isinstance(path[-1], int) else f"\n  Write {path[-1]} = [{_shown(value)}]"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _section_at(annotation: Any, path: KeyPath) -> type[BaseModel] | None:
    """Return the section class that a path within a section leads to."""
    current = annotation
    for part in path:
        arguments: tuple[Any, ...] = getattr(current, "__args__", ())
        if isinstance(part, int) and arguments:
            current = arguments[0]
        elif isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = current.model_fields[str(part)].annotation
        elif typing.get_origin(current) is dict:
            current = arguments[1]
    # A table that may be left out has a type for its absence too.
    choices = current.__args__ if isinstance(current, types.UnionType) else (current,)
    return next((one for one in choices if isinstance(one, type) and issubclass(one, BaseModel)), None)


def toml_hint(text: str, error: tomli.TOMLDecodeError, lists: Collection[str]) -> str:
    """Return a line on how to correct a text that is not TOML, or "" if there is nothing to say.

    Args:
        text: Whole text.
        error: Error that tomli reports.
        lists: Keys of lists of tables, whose headers are in double brackets.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    line = lines[error.lineno - 1]
    if error.msg == "Invalid value":
        return _value_hint(line[error.colno - 1 :])
    if error.msg.startswith("Cannot"):
        return _twice_hint(lines[: error.lineno - 1], line, lists)
    return ""


def _value_hint(rest: str) -> str:
    """Return how TOML writes what follows an equals sign or is in an array."""
    word = re.split(r"[,\]}#]", rest)[0].strip()
    if not word:
        return "\n  A value is missing there"
    if word.lower() in {"true", "false"}:
        return f"\n  Write {word.lower()}"
    if not re.match(r"[A-Za-z_/~]", word):
        return ""
    # Single quotes leave backslashes as they are.
    quote = "'" if "\\" in word else '"'
    return f"\n  Text stands in quotes: {quote}{word}{quote}"


def _twice_hint(before: list[str], line: str, lists: Collection[str]) -> str:
    """Return where a repeated key or table was first defined."""
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
