"""Where the files of an installed library are."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def package_file(package: str, *inner: str) -> Path | None:
    """Return a file or folder of a package without importing it, or None if the package is not installed."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent.joinpath(*inner)
