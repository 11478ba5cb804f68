"""The leaderboard: markdown pages made from records alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from unlearnbench.errors import StoreError
from unlearnbench.ranking import Row, rows_by_problem
from unlearnbench.record import Record
from unlearnbench.table import CAPTION, markdown_line, markdown_table, method_name, one_line

LEGEND = """\
- **FAe**, forgetting accuracy: forget classes' test images still classified as their own class. Lower is better.
- **FPAe**, forgetting prototype accuracy: forget classes' test images whose nearest class prototype is still their \
own. The yardstick is FDR's value; below it means damage, not better forgetting.
- **CAne**, constraint accuracy: the same as FAe on the retain classes. Higher is better.
- **Original** saw all classes, **FDR** (full data retraining) was trained from scratch without the forget classes; \
both are references and have no rank.
- **images read** counts the images that a method took through the network on the way, per seed; **seconds** are its \
training or unlearning time per seed on the machine of the record.
"""


def page_name(rows: Sequence[Row]) -> str:
    """Return the file name of a problem's page."""
    return f"{rows[0].problem.slug}.md"


def problem_page(rows: Sequence[Row]) -> str:
    """Return the markdown page of one problem."""
    problem = rows[0].problem
    devices = sorted({record.environment["device"] for row in rows for record in row.done})
    notes = [f"- {method_name(row)}: {one_line(row.note)}" for row in rows if row.note]
    forgotten = ", ".join(problem.forget_class_names)
    training = ", ".join(f"{key} {value}" for key, value in sorted(problem.training.items()) if value not in (None, []))
    manifests = sorted({record.manifest_name for row in rows for record in row.records})
    methods = [
        markdown_line(
            (
                method_name(row),
                f"{row.method.distribution} {row.method.version}",
                ", ".join(f"{key} = {value}" for key, value in sorted(row.method.options.items())) or "none",
            )
        )
        for row in rows
        if not row.is_reference
    ]
    parts = [
        f"# {problem.title}",
        markdown_table(rows),
        CAPTION,
        *(["## Without a rank", "\n".join(notes)] if notes else []),
        "## Problem",
        f"- Forget classes: {forgotten}\n"
        f"- Images: {problem.train_images:,} for training, {problem.test_images:,} for testing; "
        f"{sum(problem.limited_counts):,} limited ones for the methods\n"
        f"- Data set revision: `{problem.dataset_revision}`\n"
        f"- Training of the references: {training}\n"
        f"- Devices: {', '.join(devices) or 'none'}\n"
        f"- Manifests: {', '.join(manifests)}",
        "## Methods",
        "\n".join(["| method | from | options |", "| --- | --- | --- |", *methods]),
        "## Columns",
        LEGEND.strip(),
    ]
    return "\n\n".join(parts) + "\n"


def overview_page(problems: Sequence[Sequence[Row]]) -> str:
    """Return the markdown page that lists all problems."""
    parts = [
        "# Leaderboard",
        "Generated from run records by `unlearnbench leaderboard build`; do not edit by hand.",
    ]
    for rows in problems:
        parts += [f"## [{rows[0].problem.title}]({page_name(rows)})", markdown_table(rows)]
    return "\n\n".join([*parts, CAPTION, LEGEND.strip()]) + "\n"


def build_leaderboard(records: Iterable[Record], folder: Path) -> list[Path]:
    """Write the overview and a page for each problem; the same records give the same bytes.

    Returns:
        The written files.

    Raises:
        StoreError: If the folder cannot be written.
    """
    problems = rows_by_problem(records)
    pages = {"README.md": overview_page(problems)} | {page_name(rows): problem_page(rows) for rows in problems}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            (folder / name).write_text(text)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return [folder / name for name in pages]
