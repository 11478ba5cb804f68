"""The leaderboard in short: how each method ended, and what the page says of it."""

from __future__ import annotations

import pytest
from support.records import make_record

from unlearnbench.results.ranking import rows_by_problem
from unlearnbench.results.records.record import Record
from unlearnbench.results.summaries.in_short import in_short, outcome

Positions = tuple[float, float, float]
REFERENCES: dict[str, tuple[tuple[float, float, float], Positions]] = {
    "original": ((0.9, 0.8, 0.9), (1.0, 1.0, 1.0)),
    "fdr": ((0.0, 0.5, 0.9), (0.0, 0.0, 0.0)),
}


def records(
    name: str, positions: Positions, *, method: str = "m", forget: float = 0.0, retain: float = 0.9, seeds: int = 3
) -> list[Record]:
    """Return a problem with its references and one method."""
    made = []
    for seed in range(seeds):
        for reference, (metrics, at) in REFERENCES.items():
            made.append(make_record(reference, seed, metrics=metrics, problem=name, positions=at))
        made.append(make_record(method, seed, metrics=(forget, 0.5, retain), problem=name, positions=positions))
    return made


def ended(found: list[Record]) -> str | None:
    """Return the outcome of the only method of a problem."""
    (rows,) = rows_by_problem(found)
    (row,) = (row for row in rows if not row.is_reference)
    return outcome(row)


@pytest.mark.parametrize(
    ("positions", "wanted"),
    [
        ((0.0, 0.1, 0.25), "forgets"),
        ((-0.25, 0.0, 0.0), "forgets"),
        ((0.0, 0.1, 0.26), "in part"),
        ((0.49, 0.4, 0.3), "in part"),
        ((0.0, 0.0, 0.5), "only hides"),
        ((-0.3, 0.0, 0.2), "damages"),
        # One view is damaged, and another still knows.
        ((-0.9, 0.0, 0.6), "only hides"),
    ],
)
def test_who_passes_is_told_by_its_three_views(positions: Positions, wanted: str) -> None:
    assert ended(records("a", positions)) == wanted


def test_who_does_not_pass_is_told_why() -> None:
    near = (0.0, 0.0, 0.0)
    assert ended(records("a", near, retain=0.8)) == "loses"
    assert ended(records("a", near, forget=0.5)) == "still knows"
    assert ended(records("a", near, seeds=2)) is None


def page(*problems: list[Record]) -> str:
    rows = rows_by_problem([record for found in problems for record in found])
    places = {of_problem[0].problem.slug: f"x.md#{of_problem[0].problem.slug}" for of_problem in rows}
    return "\n\n".join(in_short(rows, places))


def test_the_page_says_who_forgets_and_who_hides() -> None:
    text = page(records("a", (0.1, 0.1, 0.1)), records("b", (0.1, 0.1, 0.9)))
    assert text.startswith("1 methods on 2 problems.")
    assert "- **Who forgets.** On 1 of 2 problems" in text
    assert "nearest to FDR is **m** on [problem 1](x.md#a), at 0.10." in text
    assert "Of 1 methods that pass anywhere, 0 mostly hide" in text
    assert "**m** on [problem 2](x.md#b) most of all, at +0.90." in text
    assert "To come within 0.25 of FDR in all three views on 1 of 2 (the best on [problem 2](x.md#b), **m**, " in text
    assert "to forget on every problem with the same options." in text
    assert "| m | 2 | 1 |  |  | 1 |  |  |  | 100.0 | +0.0 |" in text
    assert "1. [a: forget 1 of 10 classes](x.md#a): **m** forgets, at a distance of 0.10 (" in text
    assert "(prototype +0.10, neighbours +0.10, probe +0.10), with FAe 0.0 and a loss of 0.0 points, for " in text


def test_what_everybody_can_do_is_not_told_as_open() -> None:
    text = page(records("a", (0.1, 0.1, 0.1)), records("b", (0.1, 0.1, 0.2)))
    assert "nobody can do" not in text
    assert "Who only hides" not in text


def test_a_control_never_counts_as_the_nearest() -> None:
    text = page(records("a", (0.1, 0.1, 0.1), method="wd"))
    assert "1. [a: forget 1 of 10 classes](x.md#a): nobody passes." in text
    assert "to pass at all on [problem 1](x.md#a)" in text
    assert "| wd (control) | 1 | 1 |" in text


def test_a_leaderboard_without_enough_seeds_says_so() -> None:
    assert page(records("a", (0.1, 0.1, 0.1), seeds=2)) == "No method has been run with three seeds yet."
