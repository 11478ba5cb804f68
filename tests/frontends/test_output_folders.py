"""Folders that are written to and read from: strangers' files stay, and a folder above the right one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.commands import cli


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("report",), "README.md"),
        (("leaderboard", "build"), "README.md"),
        (("leaderboard", "build"), "index.html"),
    ],
)
def test_a_page_of_somebody_else_is_not_replaced(
    finished: Any, tmp_path: Path, command: tuple[str, ...], name: str
) -> None:
    (tmp_path / name).write_text("# My project, which compares unlearnbench with others\n")
    done = cli(*command, finished.output, "-o", tmp_path)
    assert done.code == 2
    assert done.err == (
        f"{tmp_path / name} was not written by this command and would be replaced\n"
        "  Name another folder with -o, or move it away\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_our_own_pages_are_written_again(finished: Any, tmp_path: Path) -> None:
    for _ in range(2):
        assert cli("leaderboard", "build", finished.output, "-o", tmp_path / "board").code == 0
        assert cli("report", finished.output, "-o", tmp_path / "report", "--brief").code == 0


def test_the_folder_above_an_output_folder_is_told(finished: Any) -> None:
    done = cli("table", finished.output.parent)
    assert done.code == 2
    assert done.err == (
        f"{finished.output.parent} holds an output folder and is none itself\n  Name one: {finished.output}\n"
    )


def test_a_folder_within_the_store_is_told_which_folder_it_is_part_of(finished: Any) -> None:
    for place in (finished.output / "store", finished.output / "store" / "models"):
        done = cli("table", place)
        assert done.code == 2
        assert done.err == f"{place} is part of an output folder\n  Name that: {finished.output}\n"


def test_the_page_of_another_command_is_not_replaced(finished: Any, tmp_path: Path) -> None:
    assert cli("leaderboard", "build", finished.output, "-o", tmp_path).code == 0
    done = cli("report", finished.output, "-o", tmp_path, "--brief")
    assert (done.code, done.err.splitlines()[0]) == (
        2,
        f"{tmp_path / 'README.md'} was not written by this command and would be replaced",
    )
