"""Manifests as TOML text, from their values in a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli_w


def manifest_toml(manifest: Mapping[str, Any], comment: str = "") -> str:
    """Return the TOML text of a resolved manifest; reading the text gives the same manifest.

    None and empty tables or lists are left out, because leaving them out means the same.

    Args:
        manifest: JSON values, as `Record.manifest` holds them.
        comment: Comment for the first line.
    """
    text = tomli_w.dumps(_said(manifest))
    return f"# {comment}\n\n{text}" if comment else text


def _said(value: Any) -> Any:
    """Return a value without those entries of its tables that say nothing."""
    if isinstance(value, Mapping):
        return {key: _said(inner) for key, inner in value.items() if inner is not None and inner not in ({}, [])}
    return [_said(inner) for inner in value] if isinstance(value, list | tuple) else value
