from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from unlearnbench.metrics.metric_record import Hits, packed, unpacked
from unlearnbench.results.statistics import (
    bootstrap_means,
    differ,
    mean,
    percentile_interval,
    seeds_and_images_interval,
    standard_deviation,
    t_interval,
)

VALUES = [0.61, 0.64, 0.58, 0.66, 0.60]


def test_mean_and_deviation_are_numpys() -> None:
    assert mean(VALUES) == pytest.approx(np.mean(VALUES))
    assert standard_deviation(VALUES) == pytest.approx(np.std(VALUES, ddof=1))


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_the_t_interval_is_scipys(count: int, confidence: float) -> None:
    values = VALUES[:count]
    expected = stats.t.interval(confidence, count - 1, loc=np.mean(values), scale=stats.sem(values))

    assert t_interval(values, confidence) == pytest.approx(expected)


def test_five_seeds_by_hand() -> None:
    # t for 4 degrees of freedom is 2.776, and s = sqrt(2.5), so that the half width is 2.776 * 0.7071.
    assert t_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((3 - 1.9632, 3 + 1.9632), abs=1e-4)


def test_too_few_values_have_no_interval() -> None:
    assert mean([]) is None
    assert standard_deviation([0.5]) is None
    assert t_interval([0.5]) is None


def test_the_bootstrap_draws_seeds_and_images() -> None:
    # The means of an outcome that depends only on the image vary like a binomial, however many seeds there are.
    outcomes = np.tile(np.arange(400) < 100, (5, 1))

    found = bootstrap_means(outcomes)

    assert found.mean() == pytest.approx(0.25, abs=0.003)
    assert found.std() == pytest.approx(np.sqrt(0.25 * 0.75 / 400), rel=0.1)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_without_images_it_is_the_t_interval(count: int) -> None:
    found = percentile_interval(bootstrap_means(np.array(VALUES[:count])[:, None]))

    assert found == pytest.approx(t_interval(VALUES[:count]), rel=0.06, abs=0.01)


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize(("images", "luck"), [(1, 0.0), (200, 0.0), (200, 0.1)])
def test_the_interval_holds_the_truth_as_often_as_it_says(count: int, images: int, luck: float) -> None:
    # The two methods have no true difference: seeds differ by 3 points, images by 20, and each hit by luck.
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        seeds = 0.03 * generator.standard_normal((2, count, 1))
        hard = 0.2 * generator.standard_normal((2, 1, images)) if images > 1 else 0.0
        outcomes = 0.5 + seeds + hard + luck * generator.standard_normal((2, count, images))
        covered.append(not differ(*map(bootstrap_means, outcomes)))

    assert np.mean(covered) == pytest.approx(0.95, abs=0.035)


def test_one_seed_leaves_the_images_to_draw() -> None:
    outcomes = np.arange(400)[None] < 100

    assert bootstrap_means(outcomes).std() == pytest.approx(np.sqrt(0.25 * 0.75 / 400), rel=0.1)


def test_the_same_data_give_the_same_interval() -> None:
    outcomes = np.random.default_rng(0).random((3, 50)) < 0.5

    assert (bootstrap_means(outcomes) == bootstrap_means(outcomes.copy())).all()


def test_pairing_sees_a_small_difference_that_spread_would_hide() -> None:
    generator = np.random.default_rng(0)
    first = generator.random((5, 500)) < generator.random((5, 1))
    second = first.copy()
    second[:, :25] = False

    assert first.mean() - second.mean() < bootstrap_means(first).std()
    assert differ(bootstrap_means(first), bootstrap_means(second))


def test_equal_methods_do_not_differ() -> None:
    outcomes = np.random.default_rng(0).random((5, 100)) < 0.5

    assert not differ(bootstrap_means(outcomes), bootstrap_means(outcomes))
    assert not differ(bootstrap_means(outcomes), bootstrap_means(outcomes[:, ::-1]))


def test_one_seed_without_images_leaves_nothing_to_draw() -> None:
    first, second = np.array([[0.25]]), np.array([[0.26]])

    assert set(bootstrap_means(first)) == {0.25}
    assert differ(bootstrap_means(first), bootstrap_means(second))


@pytest.mark.parametrize("count", [1, 8, 13])
def test_hits_come_back_from_a_record(count: int) -> None:
    hits = np.random.default_rng(0).random(count) < 0.5

    assert (unpacked(packed(hits)) == hits).all()


def test_hits_by_hand() -> None:
    # In base64, these are the bytes 1010 0000 and 1000 0000.
    assert packed(np.array([1, 0, 1, 0, 0, 0, 0, 0, 1], dtype=np.bool_)) == Hits(images=9, bits="oIA=")


@pytest.mark.parametrize("count", [2, 3, 5])
def test_an_interval_over_seeds_and_images_without_images_is_the_t_interval(count: int) -> None:
    found = seeds_and_images_interval(VALUES[:count], [0.0] * count)
    assert found == pytest.approx(t_interval(VALUES[:count]))


def test_an_interval_over_seeds_and_images_of_one_seed_is_over_images() -> None:
    assert seeds_and_images_interval([0.5], [0.1]) == pytest.approx((0.4, 0.6))
    assert seeds_and_images_interval([], []) is None


@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
def test_an_interval_from_summaries_is_about_as_wide_as_the_bootstrap_and_not_narrower(alike: float) -> None:
    """Outcomes of -1, 0 and 1, of which a share is the same with every seed."""
    stream = np.random.default_rng(0)
    outcomes = np.where(
        stream.random((1, 400)) < alike, stream.integers(-1, 2, (1, 400)), stream.integers(-1, 2, (5, 400))
    ).astype(float)
    values = outcomes.mean(axis=1)
    over_images = [
        (high - low) / 2
        for low, high in (stats.t.interval(0.95, 399, loc=v.mean(), scale=stats.sem(v)) for v in outcomes)
    ]
    low, high = percentile_interval(bootstrap_means(outcomes))
    found = seeds_and_images_interval(list(values), over_images)
    assert found is not None
    assert 0.95 * (high - low) < found[1] - found[0] < 2 * (high - low)
