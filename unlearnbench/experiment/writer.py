"""Manifests as TOML text, from what a record holds of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli_w


def manifest_toml(manifest: Mapping[str, Any], comment: str = "") -> str:
    """Return the TOML text of a resolved manifest; reading it gives the same manifest.

    What is None or an empty table or list is left out: that is what leaving it out means.

    Args:
        manifest: JSON values, as `Record.manifest` holds them.
        comment: A first line.
    """
    text = tomli_w.dumps(_said(manifest))
    return f"# {comment}\n\n{text}" if comment else text


def _said(value: Any) -> Any:
    """Return a value without the entries of its tables that say nothing."""
    if isinstance(value, Mapping):
        return {key: _said(inner) for key, inner in value.items() if inner is not None and inner not in ({}, [])}
    return [_said(inner) for inner in value] if isinstance(value, list | tuple) else value
