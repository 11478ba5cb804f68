"""Manifests as TOML text, from their values in a record."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from unlearnbench.registry.plugin_file import FILE, is_file_name

# These keys name published weights or a checkpoint, whose path starts from the manifest's folder.
_WEIGHTS = ("weights", "start", "original", "fdr")


def manifest_toml(manifest: Mapping[str, Any], comment: str = "") -> str:
    """Return the TOML text of a resolved manifest; reading the text gives the same manifest.

    None and empty tables or lists are left out, because leaving them out means the same.

    Args:
        manifest: JSON values, as `Record.manifest` holds them.
        comment: Comment for the first line.
    """
    text = tomli_w.dumps(_said(manifest))
    return f"# {comment}\n\n{text}" if comment else text


def moved(manifest: Mapping[str, Any], start: Path, end: Path) -> dict[str, Any]:
    """Return a manifest's values for another folder: relative paths lead to the same files from there.

    Args:
        manifest: JSON values.
        start: Folder from which the paths start.
        end: Folder from which they are to start.
    """

    def path(text: str) -> str:
        place = Path(text).expanduser()
        return text if place.is_absolute() else Path(os.path.relpath(start / place, end)).as_posix()

    def value(key: str, found: Any) -> Any:
        # What the options of a plugin mean is its own affair.
        if key == "options":
            return found
        if isinstance(found, Mapping):
            return {name: value(name, inner) for name, inner in found.items()}
        if isinstance(found, list):
            return [value(key, inner) for inner in found]
        if key == "name" and is_file_name(found):
            file, _, function = found.removeprefix(f"{FILE}:").rpartition(":")
            return f"{FILE}:{path(file)}:{function}"
        return path(found) if key in _WEIGHTS and (start / found).is_file() else found

    return {key: value(key, inner) for key, inner in manifest.items()}


def _said(value: Any) -> Any:
    """Return a value without those entries of its tables that say nothing."""
    if isinstance(value, Mapping):
        return {key: _said(inner) for key, inner in value.items() if inner is not None and inner not in ({}, [])}
    return [_said(inner) for inner in value] if isinstance(value, list | tuple) else value
