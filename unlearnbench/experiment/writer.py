"""Manifests as TOML text, from what a record holds of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any


def manifest_toml(manifest: Mapping[str, Any], comment: str = "") -> str:
    """Return the TOML text of a resolved manifest; reading it gives the same manifest.

    What is None or an empty table or list is left out: that is what leaving it out means.

    Args:
        manifest: JSON values, as `Record.manifest` holds them.
        comment: A first line.
    """
    lines = [f"# {comment}"] if comment else []
    tables = {key: value for key, value in manifest.items() if _is_table(value)}
    lines += [f"{key} = {toml_value(value)}" for key, value in manifest.items() if key not in tables and _says(value)]
    for key, value in tables.items():
        header = f"[{key}]" if isinstance(value, dict) else f"[[{key}]]"
        for entry in [value] if isinstance(value, dict) else value:
            lines += ["", header, *_pairs(entry)]
    return "\n".join(lines) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _says(value: Any) -> bool:
    return value is not None and value not in ({}, [])


def _pairs(table: Mapping[str, Any]) -> Iterator[str]:
    return (f"{_key(key)} = {toml_value(value)}" for key, value in table.items() if _says(value))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)


def toml_value(value: Any) -> str:
    """Return a JSON value as TOML in one line."""
    if isinstance(value, dict):
        return f"{{ {', '.join(_pairs(value))} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(one) for one in value)}]"
    if isinstance(value, float):
        return repr(value)
    # TOML's basic strings have JSON's escapes, except for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
