"""The heat map of methods and stages, and the performance profile, as pictures with their numbers."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from support.records import STAGES, make_record, small_board, with_stages, write_records

from unlearnbench.results.figures import performance_profile, stage_map
from unlearnbench.results.figures.drawing import FigureData
from unlearnbench.results.records.record import Record
from unlearnbench.results.report.report import FIGURES, write_report


def data(*records: Record) -> FigureData:
    return FigureData(records, Path())


def judged(seeds: int = 2) -> list[Record]:
    return [
        *(with_stages(make_record("fdr", seed), 0.0, 1.0) for seed in range(seeds)),
        *(with_stages(make_record("original", seed), 0.3) for seed in range(seeds)),
        *(with_stages(make_record("m", seed), -0.2) for seed in range(seeds)),
    ]


def test_a_report_has_the_map_with_the_numbers_of_each_method_and_stage(tmp_path: Path) -> None:
    runs = write_records(tmp_path / "runs", judged())
    written = write_report(runs, tmp_path / "report", figures=(stage_map.drawings,))

    assert {stage_map.drawings, performance_profile.drawings} < set(FIGURES)
    assert written.not_drawn == ()
    folder = tmp_path / "report" / "figures"
    assert sorted(path.suffix for path in folder.iterdir()) == [".csv", ".png", ".svg"]
    with (folder / "small-stages.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["method"], row["stage"]) for row in rows] == [
        (method, stage) for method in ("Original", "FDR", "m") for stage in STAGES
    ]
    assert [float(row["layer_prototype_gap"]) for row in rows[6:]] == pytest.approx([0.0, -0.1, -0.2])
    assert "![small-stages](figures/small-stages.png)" in (tmp_path / "report" / "README.md").read_text()


def test_the_map_writes_each_number_and_names_each_stage() -> None:
    (drawing,) = stage_map.drawings(data(*judged()))
    *panels, _, _ = drawing.figure.axes
    titles = ["FPAe less FDR's", "probe less FDR's", "CKA to Original", "CKA to FDR"]
    assert [axes.get_title() for axes in panels] == titles
    assert [text.get_text() for text in panels[0].texts[:3]] == ["0.0", "+15.0", "+30.0"]
    assert [text.get_text() for text in panels[0].get_xticklabels()] == list(STAGES)
    # The colours of both kinds of gaps are those of one scale, symmetric around FDR.
    limits = [axes.images[0].get_clim() for axes in panels]
    assert limits[0] == limits[1] == pytest.approx((-30.0, 30.0))
    assert limits[2:] == [(0.0, 1.0)] * 2


def test_records_without_stages_have_no_map_and_few_problems_no_profile() -> None:
    assert list(stage_map.drawings(data(*small_board()))) == []
    assert list(performance_profile.drawings(data(*small_board(seeds=3)))) == []


def test_the_profile_is_drawn_from_five_problems_on() -> None:
    records = [record for number in range(5) for record in small_board(f"problem{number}", 3)]
    (drawing,) = performance_profile.drawings(data(*records))
    labels = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert sorted(labels) == ["absent 0.00", "broken 0.00", "good 0.70", "lossy 0.00", "weak 0.00"]
    good = [row for row in drawing.rows if row["method"] == "good"]
    assert [row["share"] for row in good] == [0.0, 1.0, 1.0]
    assert [row["t"] for row in good] == pytest.approx([0.0, 0.3, 1.0])
    assert re.search(r"share of its problems", drawing.title)
