"""Records as a data frame, for notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from unlearnbench.results.records.load import load_records
from unlearnbench.results.records.record import Record

COLUMNS = ("problem", "unlearner", "role", "seed", "options", "metric", "value", "status", "reason", "dataset", "title")


def read_records(folder: Path | str) -> pd.DataFrame:
    """Return the records of a folder, with one row for each cell and metric.

    Args:
        folder: An output folder, a leaderboard, or a folder of records.

    Returns:
        A frame with the columns `problem` (its name in paths), `unlearner` (the label, `original` and `fdr` among
        them), `role` (`reference` or `unlearner`), `seed`, `options` (a dict), `metric`, `value` (a fraction for
        shares, NaN where there is none), `status` (`done`, `failed` or `not_applicable`), `reason`, `dataset` and
        `title`. A cell without a result has a single row without a metric.

    Raises:
        InvalidFileError: If the folder holds no records, or one cannot be used.
    """
    rows = [row for record in load_records(Path(folder)) for row in _rows(record)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"seed": "int64", "value": "float64"})


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    common = {
        "problem": record.problem.slug,
        "unlearner": record.method.label,
        "role": record.method.role,
        "seed": record.seed,
        "options": record.method.options,
        "dataset": record.problem.dataset,
        "title": record.problem.title,
    }
    if not record.metrics:
        yield {**common, "metric": None, "value": None, "status": record.status, "reason": record.reason}
    for label, metric in record.metrics.items():
        yield {**common, "metric": label, "value": metric.value, "status": metric.status, "reason": metric.reason}
