"""The limited data."""

from __future__ import annotations

import numpy as np
import pytest

from unlearnbench.datasets.split import limited_count, limited_indices
from unlearnbench.seeds import derived_seed

LABELS = np.random.default_rng(0).integers(4, size=400)
COUNTS = (10, 1, 25, 0)


@pytest.mark.parametrize(
    ("available", "share", "count"),
    [
        (100, 0.07, 7),  # 0.07 * 100 is 7.000000000000001
        (100, 0.29, 29),
        (1000, 0.1, 100),
        (134, 0.1, 14),
        (130, 0.1, 13),
        (3, 1e-9, 1),
        (3, 1.0, 3),
        (7, 1, 7),
        (5, 0.5, 3),
    ],
)
def test_a_share_is_the_decimal_as_written_rounded_up(available: int, share: float, count: int) -> None:
    assert limited_count(available, share, None) == count


def test_a_number_per_class_is_taken_as_it_is() -> None:
    assert limited_count(100, None, 3) == 3


def test_each_class_gives_its_count_without_replacement() -> None:
    positions = limited_indices(LABELS, COUNTS, seed=0)
    assert np.bincount(LABELS[positions], minlength=4).tolist() == list(COUNTS)
    assert len(set(positions.tolist())) == len(positions)
    assert positions.tolist() == sorted(positions.tolist())
    assert positions.dtype == np.int64


def test_the_whole_of_a_class_can_be_drawn() -> None:
    every = np.bincount(LABELS).tolist()
    assert limited_indices(LABELS, every, seed=0).tolist() == list(range(400))


def test_the_same_seed_draws_the_same() -> None:
    assert limited_indices(LABELS, COUNTS, 5).tolist() == limited_indices(LABELS, COUNTS, 5).tolist()


def test_other_seeds_draw_other_images() -> None:
    drawn = {tuple(limited_indices(LABELS, COUNTS, seed).tolist()) for seed in range(20)}
    assert len(drawn) == 20


def test_what_is_drawn_from_a_class_depends_on_no_other_class() -> None:
    few, many = limited_indices(LABELS, (5, 5, 5, 5), 3), limited_indices(LABELS, (5, 80, 1, 5), 3)
    for label in (0, 3):
        assert few[LABELS[few] == label].tolist() == many[LABELS[many] == label].tolist()


def test_less_data_are_a_part_of_more_data() -> None:
    few, many = limited_indices(LABELS, (5, 5, 5, 5), 3), limited_indices(LABELS, (9, 9, 9, 9), 3)
    assert set(few.tolist()) < set(many.tolist())


def test_every_image_of_a_class_is_drawn_equally_often() -> None:
    labels = np.zeros(10, dtype=np.int64)
    drawn = np.concatenate([limited_indices(labels, (3,), seed) for seed in range(2000)])
    # 600 expected of each, standard deviation 20.5.
    assert np.abs(np.bincount(drawn, minlength=10) - 600).max() < 100


def test_every_purpose_of_a_seed_has_a_number_of_its_own() -> None:
    numbers = {
        derived_seed(seed, *purpose) for seed in range(50) for purpose in ((), ("a",), ("a", 1), ("a", "b"), ("a1",))
    }
    assert len(numbers) == 250
    assert all(0 <= number < 2**63 for number in numbers)
