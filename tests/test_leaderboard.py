"""The leaderboard's pages."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from helpers import make_record

from unlearnbench.errors import StoreError
from unlearnbench.leaderboard import build_leaderboard
from unlearnbench.record import Record


def records(problem: str = "problem") -> list[Record]:
    return [
        *(make_record("original", seed, metrics=(0.9, 0.8, 0.9), problem=problem) for seed in (0, 1)),
        *(make_record("fdr", seed, metrics=(0.0, 0.5, 0.91), problem=problem) for seed in (0, 1)),
        *(make_record("good", seed, problem=problem, options={"epochs": 3, "mode": "a|b"}) for seed in (0, 1)),
        make_record("twice", 0, problem=problem, options={"rate": 0.1}),
        make_record("twice", 0, problem=problem, options={"rate": 0.2}),
        make_record("broken", 0, status="failed", reason="ValueError: no", metrics=None, problem=problem),
        make_record("absent", 0, status="not_applicable", reason="needs batch norm", metrics=None, problem=problem),
    ]


def pages(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_there_is_an_overview_and_a_page_for_each_problem(tmp_path: Path) -> None:
    written = build_leaderboard([*records("b"), *records("a")], tmp_path / "board")
    assert written == [tmp_path / "board" / name for name in ("README.md", "a.md", "b.md")]
    overview = (tmp_path / "board" / "README.md").read_text()
    assert re.findall(r"^## \[(.*)\]\((.*)\)$", overview, re.M) == [
        ("a: forget 1 of 10 classes", "a.md"),
        ("b: forget 1 of 10 classes", "b.md"),
    ]
    assert overview.startswith("# Leaderboard\n\nGenerated from run records")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_same_records_in_any_order_give_the_same_bytes(tmp_path: Path, seed: int) -> None:
    every = [*records("a"), *records("b")]
    build_leaderboard(every, tmp_path / "first")
    random.Random(seed).shuffle(every)
    build_leaderboard(every, tmp_path / "second")
    assert pages(tmp_path / "first") == pages(tmp_path / "second")


def test_failed_and_not_applicable_cells_are_shown_with_their_reason(tmp_path: Path) -> None:
    build_leaderboard(records(), tmp_path)
    text = (tmp_path / "problem.md").read_text()
    assert "- broken: failed with seed 0: ValueError: no\n" in text
    assert "- absent: not applicable with seed 0: needs batch norm\n" in text
    assert "|  | broken | - | - | - | - | - | - | 0 of 1 |" in text
    assert "|  | absent | - | - | - | - | - | - | 0 of 1 |" in text


def test_ranks_are_in_the_table(tmp_path: Path) -> None:
    build_leaderboard(records(), tmp_path)
    text = (tmp_path / "problem.md").read_text()
    table = [
        line.split(" | ")[:2] for line in text.splitlines() if re.match(r"\|  ?\d* \| (Orig|FDR|good|twice)", line)
    ]
    assert [(rank.strip("| "), re.sub(r"\[.{4}\]", "[]", method)) for rank, method in table] == [
        ("", "Original"),
        ("", "FDR"),
        ("1", "good"),
        ("1", "twice []"),
        ("1", "twice []"),
    ]


def test_methods_are_listed_with_their_options(tmp_path: Path) -> None:
    build_leaderboard(records(), tmp_path)
    text = (tmp_path / "problem.md").read_text()
    assert r"| good | made-up 1.0 | epochs = 3, mode = a\|b |" in text
    assert "| broken | made-up 1.0 | none |" in text
    listed = text.partition("## Methods")[2].partition("## Columns")[0]
    assert "Original" not in listed
    assert len(re.findall(r"^\| twice \[", listed, re.M)) == 2


def test_a_reason_of_several_lines_stays_one_item(tmp_path: Path) -> None:
    every = [*records(), make_record("odd", 0, status="failed", reason="first\n  # second", metrics=None)]
    build_leaderboard(every, tmp_path)
    assert "- odd: failed with seed 0: first # second\n" in (tmp_path / "problem.md").read_text()


def test_the_problem_is_described(tmp_path: Path) -> None:
    build_leaderboard(records(), tmp_path)
    text = (tmp_path / "problem.md").read_text()
    assert "- Forget classes: nine\n" in text
    assert "- Images: 1,352 for training, 445 for testing; 140 limited ones for the methods\n" in text
    assert "- Training of the references: epochs 2\n" in text
    assert "- Devices: a machine\n" in text


def test_building_again_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    build_leaderboard(records(), tmp_path)
    build_leaderboard(records(), tmp_path)
    assert sorted(pages(tmp_path)) == ["README.md", "notes.txt", "problem.md"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        build_leaderboard(records(), tmp_path / "file" / "board")
    assert str(caught.value) == f"{tmp_path}/file/board: cannot be written: Not a directory"
