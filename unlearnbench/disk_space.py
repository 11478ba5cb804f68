"""Room on the disk: asked for before anything large is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from unlearnbench.errors import DatasetError


def size_text(size: float) -> str:
    """Return a number of bytes as "169 MB" or "1.2 GB" (powers of 1000, as disks are sold)."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def require_space(folder: Path, size: int, what: str) -> None:
    """Make sure that there is room for `size` bytes.

    Args:
        folder: Where they will be written; it need not exist yet.
        size: Bytes.
        what: Named in the message.

    Raises:
        DatasetError: If there is not.
    """
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < size:
        raise DatasetError(
            f"{what} needs {size_text(size)} at {folder}, where {size_text(free)} are free\n"
            "  Make room, or set UNLEARNBENCH_DATA to a folder on a larger disk"
        )
