"""TOML from values: what `tune` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


def toml_text(values: Mapping[str, Any]) -> str:
    """Return a manifest's raw values as TOML: plain keys first, then tables, then arrays of tables.

    Keys whose value is None are left out.
    """
    given = {key: value for key, value in values.items() if value is not None}
    plain = [f"{_key(key)} = {_value(value)}" for key, value in given.items() if not _is_table(value)]
    parts = ["\n".join(plain)]
    for key, value in given.items():
        if isinstance(value, Mapping):
            parts.append(_table(f"[{_key(key)}]", value))
        elif _is_table(value):
            parts += [_table(f"[[{_key(key)}]]", entry) for entry in value]
    return "\n\n".join(part for part in parts if part) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _table(head: str, values: Mapping[str, Any]) -> str:
    lines = [f"{_key(key)} = {_value(value)}" for key, value in values.items() if value is not None]
    return "\n".join([head, *lines])


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_value(part)}" for key, part in value.items() if part is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(part) for part in value)}]"
    # JSON's strings, numbers and booleans are TOML's.
    return json.dumps(value, ensure_ascii=False)
