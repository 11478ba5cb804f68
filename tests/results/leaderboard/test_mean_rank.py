"""Unlearners ranked over all problems."""

from __future__ import annotations

import pytest
from scipy import stats
from support.records import make_record, small_board

from unlearnbench.results.leaderboard.mean_rank import overall
from unlearnbench.results.ranking import rows_by_problem


def test_mean_ranks_count_a_method_without_a_rank_as_the_one_behind_all() -> None:
    # In problem b, good is as bad as possible and ranks behind weak.
    second = [record for record in small_board("b") if record.method.label not in {"good", "broken"}]
    second += [
        make_record("good", seed, metrics=(0.9, 0.8, 0.9), options={"epochs": 3}, problem="b") for seed in (0, 1)
    ]
    found = {method.label: method for method in overall(rows_by_problem([*small_board("a"), *second]))}
    assert {label: [place.rank for place in method.places.values()] for label, method in found.items()} == {
        "good": [1, 2],
        "weak": [2, 1],
        "lossy": [3, 3],
        "absent": [3, 3],
        "broken": [3],
    }
    assert (found["good"].mean_rank, found["good"].ranked_on) == (1.5, 2)
    assert (found["lossy"].ranked_on, len(found["lossy"].places)) == (0, 2)
    assert found["broken"].interval is None


def test_the_interval_is_that_of_the_t_distribution_within_the_first_and_the_last_place() -> None:
    second = [record for record in small_board("b") if record.method.label != "good"]
    (weak,) = [method for method in overall(rows_by_problem([*small_board("a"), *second])) if method.label == "weak"]
    low, high = stats.t.interval(0.95, 1, loc=1.5, scale=0.5)
    assert low < 1
    # Behind good and weak on the first problem, and behind weak on the second.
    assert high > (3 + 2) / 2
    assert weak.interval == (1.0, 2.5)


def test_the_interval_is_cut_only_where_it_leaves_the_places() -> None:
    records = [
        record for name in "abcdefgh" for record in small_board(name) if record.method.label != "good" or name in "ab"
    ]
    (weak,) = [method for method in overall(rows_by_problem(records)) if method.label == "weak"]
    ranks = sorted(place.rank for place in weak.places.values())
    assert ranks == [1, 1, 1, 1, 1, 1, 2, 2]
    assert weak.interval == pytest.approx((1.0, stats.t.interval(0.95, 7, loc=1.25, scale=stats.sem(ranks))[1]))


def test_methods_stand_in_the_order_of_their_mean_ranks() -> None:
    labels = [method.label for method in overall(rows_by_problem(small_board()))]
    assert labels == ["good", "weak", "absent", "broken", "lossy"]


def test_a_method_that_was_not_run_everywhere_stands_below_those_that_were() -> None:
    second = [record for record in small_board("b") if record.method.label != "good"]
    found = overall(rows_by_problem([*small_board("a"), *second]))
    assert [(method.label, method.mean_rank, len(method.places)) for method in found][-1] == ("good", 1.0, 1)
