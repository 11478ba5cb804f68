"""Simulations of the ranking's statistics: what they promise holds for data whose truth is known.

The tests are small. `python tests/results/test_simulations.py 500` runs as many boards of each kind and prints shares.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtri

from unlearnbench.results.statistics import (
    IMAGE_DRAWS,
    bootstrap_image_draws,
    bootstrap_means,
    percentile_interval,
    simultaneous_verdicts,
)

IMAGES = 2000
# Accuracies of the nearest prototype on CIFAR-100, and how far two trainings of one recipe differ.
FDR, ORIGINAL, TRAINING = 0.436, 0.616, 0.005


def hits(stream: np.random.Generator, difficulty: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Return which images a model finds; half of what decides is an image's difficulty, the same for all models."""
    found: NDArray[np.bool_] = difficulty + stream.normal(size=len(difficulty)) < np.sqrt(2) * ndtri(share)
    return found


def board(stream: np.random.Generator, offsets: Sequence[float], seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return |position| by seed, and in each resample, of methods whose true accuracies lie `offsets` above FDR's."""
    difficulty = stream.normal(size=IMAGES)

    def models(share: float) -> np.ndarray:
        return np.array([hits(stream, difficulty, share + TRAINING * stream.normal()) for _ in range(seeds)])

    original, fdr = models(ORIGINAL), models(FDR)
    values, draws = [], np.empty((IMAGE_DRAWS, len(offsets), seeds))
    top, base = bootstrap_image_draws(original), bootstrap_image_draws(fdr)
    for number, offset in enumerate(offsets):
        own = models(FDR + offset)
        scale = original.mean(axis=1) - fdr.mean(axis=1)
        values.append(np.abs((own.mean(axis=1) - fdr.mean(axis=1)) / scale))
        draws[:, number] = np.abs((bootstrap_image_draws(own) - base) / (top - base))
    return np.array(values), draws


def share_split(boards: int, seeds: int) -> float:
    """Return the share of boards of ten equal methods on which any two of them are told apart."""
    stream = np.random.default_rng([1, seeds])
    return float(np.mean([simultaneous_verdicts(*board(stream, [0.05] * 10, seeds)).any() for _ in range(boards)]))


def share_told(boards: int, seeds: int) -> float:
    """Return the share of boards on which a method at FDR is put before one 4 points from it."""
    stream = np.random.default_rng([2, seeds])
    return float(
        np.mean([simultaneous_verdicts(*board(stream, [0.0, 0.04], seeds))[0, 1] == -1 for _ in range(boards)])
    )


def coverage(boards: int, seeds: int) -> float:
    """Return the share of 95 % intervals of a mean over seeds and images that hold the true mean."""
    stream = np.random.default_rng([3, seeds])
    held = []
    for _ in range(boards):
        outcomes = np.array([stream.random(500) < 0.9 + 0.01 * stream.normal() for _ in range(seeds)])
        low, high = percentile_interval(bootstrap_means(outcomes))
        held.append(low <= 0.9 <= high)
    return float(np.mean(held))


@pytest.mark.slow
def test_ten_equal_methods_are_seldom_told_apart() -> None:
    assert share_split(40, 5) <= 0.1  # 5 % and the chance of 40 boards


@pytest.mark.slow
def test_four_points_from_fdr_are_told_from_none() -> None:
    assert share_told(40, 5) >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_an_interval_holds_the_mean_in_95_of_100_cases(seeds: int) -> None:
    assert coverage(100, seeds) >= 0.9


if __name__ == "__main__":
    number = int(sys.argv[1])
    for count in (3, 5, 10):
        print(
            f"{count} seeds: intervals hold the mean in {coverage(number, count):.3f}, ten equal methods are split in "
            f"{share_split(number, count):.3f}, 4 points are told from none in {share_told(number, count):.3f}"
        )
