"""A few boards of each kind; `python -m tests.simulations` makes the hundreds whose shares stand in tests/README.md."""

import itertools

import numpy as np
import pytest
from simulations import board, coverage, coverage_of_loss, share_split, share_told

from unlearnbench.results.statistics import paired, simultaneous_verdicts


@pytest.mark.slow
def test_ten_equal_methods_are_seldom_told_apart() -> None:
    # If it is 5 % of all boards, five or more of 20 have a probability of 0.3 %.
    assert share_split(20, 5, images=500) <= 4 / 20


@pytest.mark.slow
def test_four_points_from_fdr_are_told_from_none() -> None:
    assert share_told(25, 5) >= 0.8


def test_what_cannot_be_told_is_not_told() -> None:
    assert share_told(25, 5, (0.0, 0.0, 0.0)) <= 2 / 25


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_an_interval_holds_the_truth_in_95_of_100_cases(seeds: int) -> None:
    assert coverage(100, seeds) >= 0.9
    assert coverage_of_loss(100, seeds) >= 0.9


def test_two_methods_among_ten_are_told_apart_by_their_own_statistic_and_one_limit() -> None:
    offsets = [(0.01 * number,) * 3 for number in range(10)]
    values, draws = board(np.random.default_rng(0), offsets, 3, images=500)
    verdicts = simultaneous_verdicts(values, draws)
    alone = {
        (i, j): paired(values[[i, j]], draws[:, [i, j]]).statistic for i, j in itertools.combinations(range(10), 2)
    }
    told = [abs(statistic) for places, statistic in alone.items() if verdicts[places]]
    not_told = [abs(statistic) for places, statistic in alone.items() if not verdicts[places]]
    assert min(told) > max(not_told)
