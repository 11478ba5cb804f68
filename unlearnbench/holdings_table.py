"""What this machine has, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from unlearnbench.disk_space import size_text
from unlearnbench.obtaining import Holding


def holdings_table(holdings: Sequence[Holding]) -> Table:
    """Return data sets and weights as a table for a terminal."""
    table = Table()
    for name in ("name", "here", "classes", "training", "test", "size", "revision", "note"):
        table.add_column(name, justify="right" if name in ("classes", "training", "test", "size") else "left")
    for holding in holdings:
        numbers = (holding.classes, holding.train_images, holding.test_images)
        table.add_row(
            holding.name,
            "yes" if holding.there else "no",
            *("" if number is None else f"{number:,}" for number in numbers),
            "" if holding.size is None else size_text(holding.size),
            holding.revision or "",
            holding.note,
        )
    return table
