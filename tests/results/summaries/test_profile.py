"""Unlearners over all problems: the performance profile."""

from __future__ import annotations

import itertools

import pytest
from support.records import make_record

from unlearnbench.results.ranking import rows_by_problem
from unlearnbench.results.records.record import Record
from unlearnbench.results.summaries.profile import Overall, overall

REFERENCES = {"original": (0.9, 0.8, 0.9), "fdr": (0.0, 0.5, 0.9)}


def problem(name: str, position: float, *, retain: float = 0.9) -> list[Record]:
    """Return a problem on which the method m has one position in all views and seeds."""
    made = []
    for seed in range(3):
        for method, metrics in REFERENCES.items():
            at = 1.0 if method == "original" else 0.0
            made.append(make_record(method, seed, metrics=metrics, problem=name, positions=(at, at, at)))
        at = position
        made.append(make_record("m", seed, metrics=(0.0, 0.5, retain), problem=name, positions=(at, at, at)))
    return made


def profiled(*problems: list[Record]) -> Overall:
    (found,) = overall(rows_by_problem([record for records in problems for record in records]))
    return found


def test_a_profile_steps_up_where_a_problem_comes_within_reach() -> None:
    found = profiled(*(problem(f"p{number}", at) for number, at in enumerate((0.2, 0.4, 0.4, 0.7, 1.5))))
    limits, shares = zip(*found.curve, strict=True)
    assert limits == pytest.approx((0.0, 0.2, 0.4, 0.7, 1.0))
    assert shares == (0.0, 0.2, 0.6, 0.8, 0.8)


def test_the_score_is_the_area_below_the_profile() -> None:
    found = profiled(*(problem(f"p{at}", at) for at in (-0.2, 0.4, 0.0, 0.7, 1.5)), problem("lost", 0.1, retain=0.5))
    area = sum((after - before) * share for (before, share), (after, _) in itertools.pairwise(found.curve))
    assert found.score == pytest.approx(area)
    assert found.score == pytest.approx((0.8 + 0.6 + 1.0 + 0.3) / 6)
    assert found.interval is not None
    assert found.interval[0] < found.score < found.interval[1]


def test_a_problem_that_is_not_passed_is_never_within_reach() -> None:
    found = profiled(*(problem(f"p{number}", 0.0, retain=0.5) for number in range(5)))
    assert found.curve == ((0.0, 0.0), (1.0, 0.0))
    assert (found.score, found.passed_on) == (0.0, 0)


def test_fewer_than_five_problems_have_no_score() -> None:
    assert profiled(*(problem(f"p{number}", 0.0) for number in range(4))).score is None
