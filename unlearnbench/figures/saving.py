"""Figures on disk: PNG, SVG and the numbers as CSV; the same drawing gives the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlearnbench.figures.base import Drawing
from unlearnbench.figures.style import DOTS_PER_INCH


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """Write a drawing as PNG, SVG and CSV below a folder and return the files. To be called within `styled`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{drawing.name}.{suffix}" for suffix in ("png", "svg", "csv")]
    # The program's version and the date would make every file another.
    drawing.figure.savefig(paths[0], dpi=DOTS_PER_INCH, metadata={"Software": None})
    drawing.figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
    paths[2].write_text(csv_text(drawing.rows))
    return paths


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV with a header, what is missing left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
