"""Simulations of the ranking's statistics: what they promise, measured on data whose truth is known.

`python -m tests.simulations` simulates 200 boards of each kind in a few minutes on one core and prints the table of
tests/README.md; `python -m tests.simulations 20` is a quick look. `tests/results/test_simulations.py` makes a few.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from unlearnbench.results.statistics import (
    IMAGE_DRAWS,
    bootstrap_image_draws,
    bootstrap_means,
    percentile_interval,
    simultaneous_verdicts,
)

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

SEEDS = (3, 5, 10)
IMAGES = 2000
# What three views (prototype, neighbours, probe) find of the forget classes on CIFAR-100 in FDR and in Original, and
# how far two trainings of one recipe differ.
FDR, ORIGINAL, TRAINING = (0.436, 0.416, 0.523), (0.616, 0.647, 0.682), 0.005
# A method is this far from FDR, in accuracy, where it has to be told from one at FDR.
FOUR_POINTS = (0.04, 0.04, 0.04)
AT_FDR = (0.0, 0.0, 0.0)


def found(stream: np.random.Generator, difficulty: Floats, shares: Sequence[float]) -> Bools:
    """Return which images the views of one model find, (V, N).

    Of what decides, a half is the image's difficulty, the same for all models, a quarter is luck of the model in all
    its views, and a quarter is luck of the view. The training moves all views of the model alike.
    """
    images = len(difficulty)
    luck = (stream.normal(size=images) + stream.normal(size=(len(shares), images))) / np.sqrt(2)
    moved = np.array(shares) + TRAINING * stream.normal()
    hits: Bools = difficulty + luck < np.sqrt(2) * ndtri(moved)[:, None]
    return hits


def board(
    stream: np.random.Generator, offsets: Sequence[Sequence[float]], seeds: int, images: int = IMAGES
) -> tuple[Floats, Floats]:
    """Return the largest |position| of the views by method and seed, (R, S), and in each resample, (B, R, S).

    Args:
        stream: Source of what is random.
        offsets: How far above FDR the true accuracies of each method's views lie.
        seeds: Number of seeds; each has an Original, an FDR and methods of its own.
        images: Number of forget test images.
    """
    difficulty = stream.normal(size=images)

    def models(shares: Sequence[float]) -> list[Bools]:
        by_seed = np.array([found(stream, difficulty, shares) for _ in range(seeds)])
        return [by_seed[:, view] for view in range(len(shares))]

    original, fdr = models(ORIGINAL), models(FDR)
    bases = list(map(bootstrap_image_draws, fdr))
    values = np.zeros((len(offsets), seeds))
    draws = np.zeros((IMAGE_DRAWS, len(offsets), seeds))
    for number, offset in enumerate(offsets):
        for view, own in enumerate(models(np.add(FDR, offset).tolist())):
            scale = original[view].mean(axis=1) - fdr[view].mean(axis=1)
            # As in the ranking, a view that finds no more in Original than in FDR does not count.
            scale = np.where(scale > 0, scale, np.nan)
            apart = own.mean(axis=1) - fdr[view].mean(axis=1)
            drawn = bootstrap_image_draws(own) - bases[view]
            values[number] = np.fmax(values[number], np.abs(apart / scale))
            draws[:, number] = np.fmax(draws[:, number], np.abs(drawn / scale))
    return values, draws


def share_split(boards: int, seeds: int, images: int = IMAGES) -> float:
    """Return the share of boards of ten equal methods on which any two of them are told apart."""
    stream = np.random.default_rng([1, seeds])
    equal = [(0.05, 0.05, 0.05)] * 10
    return float(np.mean([simultaneous_verdicts(*board(stream, equal, seeds, images)).any() for _ in range(boards)]))


def share_told(boards: int, seeds: int, offset: Sequence[float] = FOUR_POINTS) -> float:
    """Return the share of boards on which a method at FDR is put before one that lies `offset` from it."""
    stream = np.random.default_rng([2, seeds])
    verdicts = [simultaneous_verdicts(*board(stream, [AT_FDR, offset], seeds))[0, 1] for _ in range(boards)]
    return float(np.mean(np.array(verdicts) == -1))


def coverage(boards: int, seeds: int, share: float = 0.9) -> float:
    """Return how often the 95 % interval of an accuracy over seeds and images holds the true one."""
    stream = np.random.default_rng([3, seeds])
    held = []
    for _ in range(boards):
        difficulty = stream.normal(size=IMAGES)
        outcomes = np.concatenate([found(stream, difficulty, [share]) for _ in range(seeds)])
        low, high = percentile_interval(bootstrap_means(outcomes))
        held.append(low <= share <= high)
    return float(np.mean(held))


def coverage_of_loss(boards: int, seeds: int, loss: float = 0.02) -> float:
    """Return how often the interval of a paired difference, such as the loss of the retain classes, holds the truth."""
    stream = np.random.default_rng([4, seeds])
    held = []
    for _ in range(boards):
        difficulty = stream.normal(size=IMAGES)
        before, after = (
            np.concatenate([found(stream, difficulty, [share]) for _ in range(seeds)]).astype(np.float64)
            for share in (0.7, 0.7 - loss)
        )
        low, high = percentile_interval(bootstrap_means(before - after))
        held.append(low <= loss <= high)
    return float(np.mean(held))


MEASURED: dict[str, Callable[[int, int], float]] = {
    "an interval holds the true accuracy (0.9)": coverage,
    "an interval holds the true FAe (0.03)": lambda boards, seeds: coverage(boards, seeds, 0.03),
    "an interval holds the true loss (2 points)": coverage_of_loss,
    "ten equal methods, some are told apart": share_split,
    "ten equal methods, some are told apart (88 images)": lambda boards, seeds: share_split(boards, seeds, 88),
    "4 points from FDR in all views are told from 0": share_told,
    "4 points from FDR in the probe alone are told from 0": lambda boards, seeds: share_told(
        boards, seeds, (0.0, 0.0, 0.04)
    ),
}


def main() -> None:
    """Print the shares as a markdown table."""
    boards = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"| share of {boards} boards on which | {' | '.join(f'{seeds} seeds' for seeds in SEEDS)} |")
    print(f"| --- |{' ---: |' * len(SEEDS)}")
    for name, measured in MEASURED.items():
        print(f"| {name} | {' | '.join(f'{100 * measured(boards, seeds):.1f} %' for seeds in SEEDS)} |", flush=True)


if __name__ == "__main__":
    main()
