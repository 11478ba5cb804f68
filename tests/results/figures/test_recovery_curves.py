"""Curves of what comes back, from made-up records to the picture and its numbers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from support.records import make_record, with_changes, write_records

from unlearnbench.metrics.metric_record import MetricRecord
from unlearnbench.results.records.record import Record

pytest.importorskip("matplotlib")

from unlearnbench.results.figures import recovery_curves
from unlearnbench.results.report.report import write_report


def with_curve(record: Record, metric: str, curve: list[dict[str, Any]]) -> Record:
    some = record.metrics["forget_accuracy"]
    found = MetricRecord(
        **{**some.model_dump(), "name": metric, "value": curve[-1]["forget_accuracy"], "details": {"curve": curve}}
    )
    return with_changes(record, metrics={**record.metrics, metric: found})


def points(key: str, values: dict[float, float]) -> list[dict[str, Any]]:
    return [{key: place, "forget_accuracy": value, "retain_accuracy": 0.9} for place, value in values.items()]


def test_each_recovery_metric_has_a_plot_with_a_line_for_each_row(tmp_path: Path) -> None:
    made = []
    for seed in (0, 1):
        for label, shift in (("original", 0.0), ("fdr", 0.4), ("mine", 0.2)):
            record = make_record(label, seed)
            record = with_curve(
                record, "rounding_recovery", points("bits", {8: 0.5 - shift, 4: 0.6 - shift + seed / 10})
            )
            made.append(with_curve(record, "fine_tuning_recovery", points("shots", {1: 0.5, 5: 0.7})))
    runs = write_records(tmp_path / "runs", made)
    written = write_report(runs, tmp_path / "report", figures=(recovery_curves.drawings,))
    assert written.not_drawn == ()
    tables = {path.stem: path for path in (tmp_path / "report" / "figures").glob("*.csv")}
    assert sorted(name.rpartition("-")[2] for name in tables) == ["fine_tuning_recovery", "rounding_recovery"]
    with next(path for name, path in tables.items() if "rounding" in name).open() as stream:
        rows = list(csv.DictReader(stream))
    assert [
        (row["method"], row["bits"], f"{float(row['mean FAe']):.2f}") for row in rows if row["method"] == "mine"
    ] == [
        ("mine", "4", "0.45"),
        ("mine", "8", "0.30"),
    ]
    assert {row["method"] for row in rows} == {"Original", "FDR", "mine"}


def test_records_without_such_a_metric_have_no_plot(tmp_path: Path) -> None:
    runs = write_records(tmp_path / "runs", [make_record(label, 0) for label in ("original", "fdr", "mine")])
    write_report(runs, tmp_path / "report", figures=(recovery_curves.drawings,))
    assert list((tmp_path / "report").rglob("*recovery*")) == []
