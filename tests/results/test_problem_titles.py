"""Titles that tell problems apart."""

from __future__ import annotations

from pathlib import Path

from support.commands import cli
from support.records import make_record, small_board, with_changes, write_records

from unlearnbench.results.record import ProblemRecord, differences, distinct_titles


def problem(identity: str, **changes: object) -> ProblemRecord:
    return make_record("m", 0).problem.model_copy(update={"id": identity, "title": "digits", **changes})


def test_problems_of_one_title_say_what_they_differ_in() -> None:
    names = tuple("abcde")
    short, long = problem("1", training={"epochs": 2}), problem("2", training={"epochs": 9})
    other, alone = problem("3", training={"epochs": 2}, forget_class_names=names), problem("4", title="flowers")
    assert distinct_titles([short, long, other, alone]) == {
        "1": "digits; forget_class_names = nine, training.epochs = 2",
        "2": "digits; forget_class_names = nine, training.epochs = 9",
        "3": "digits; forget_class_names = a b c d ..., training.epochs = 2",
        "4": "flowers",
    }
    assert distinct_titles([short, alone])["1"] == "digits"


def test_problems_that_no_setting_tells_apart_show_their_ids() -> None:
    found = distinct_titles([problem("0123456789"), problem("abcdefghij")])
    assert found == {"0123456789": "digits; 012345", "abcdefghij": "digits; abcdef"}


def test_differences_are_named_with_both_values() -> None:
    one, other = problem("1", training={"epochs": 2}), problem("2", training={"epochs": 9}, start="a.pth")
    assert differences(one, other) == [("start", None, "a.pth"), ("training.epochs", 2, 9)]


def test_tables_of_two_problems_with_one_title_can_be_told_apart(tmp_path: Path) -> None:
    first = small_board()
    known = first[0].problem
    changes = {"title": known.title, "training": {**known.training, "epochs": 7}}
    second = [
        with_changes(record, problem=record.problem.model_copy(update=changes)) for record in small_board("second")
    ]
    lines = [line.rstrip() for line in cli("table", write_records(tmp_path, [*first, *second])).out.splitlines()]
    assert {f"{known.title}; training.epochs = 2", f"{known.title}; training.epochs = 7"} <= set(lines)
