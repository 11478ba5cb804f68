"""The uncertainty of a mean, and of a difference between two unlearners: t intervals and the paired bootstrap.

With 5 seeds an exact Wilcoxon test cannot go below p = 0.0625, which is why there are no p values or stars here.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
# These are the draws of images, and the draws of seeds for each; with few seeds the tails of t need many draws.
IMAGE_DRAWS = 2000
SEED_DRAWS = 10
# Draws of the largest statistic of a table, and the differences that are rounding.
MAX_DRAWS = 4000
ROUNDING = 1e-9


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, or None if there are no values."""
    return statistics.fmean(values) if values else None


def standard_deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample (n - 1), or None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Return the t interval of the mean: mean -+ t * s / sqrt(n), t with n - 1 degrees of freedom.

    The result is None for fewer than two values. The interval covers new seeds, but not new test images.
    """
    if len(values) < 2:
        return None
    half = t_quantile(len(values) - 1, confidence) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def seeds_and_images_interval(
    values: Sequence[float], over_images: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Return the interval of the mean over seeds for new seeds and new test images, where only summaries are known.

    Its half width is the root of the sum of two squares: the half width of the t interval over the seeds, and the mean
    of each seed's own half width over its images, as if the luck of the images were the same with every seed. It is
    none too narrow: what varies by image within a seed counts both times, as in `bootstrap_means`.

    Args:
        values: A value for each seed.
        over_images: Half width of the interval of each value over the images.
        confidence: Confidence of all these intervals.

    Returns:
        The bounds, or None without a value; with a single seed they are for new images alone.
    """
    if not values:
        return None
    over_seeds = t_interval(values, confidence)
    half = math.hypot((over_seeds[1] - over_seeds[0]) / 2 if over_seeds else 0.0, statistics.fmean(over_images))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


@functools.cache
def t_quantile(degrees: int, confidence: float) -> float:
    """Return the t that the absolute value of a t-distributed number stays below with probability `confidence`."""
    # The import of scipy takes a third of a second, and most commands print no interval.
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


def bootstrap_means(outcomes: NDArray[np.floating] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean over seeds and test images in each resample of both.

    Images are drawn with replacement and seeds get random weights, independently of each other; the two deviations
    from the mean are added. The draws depend only on the shape, so that two unlearners with the same seeds and images
    get the same draws and their difference is paired in each resample.

    Seeds are too few to be drawn with replacement: the middle 95 % of such resamples cover the true mean in 75 of 100
    cases with 3 seeds, and in 84 with 5. Their weights are chosen so that the mean over seeds spreads as the t
    distribution with n - 1 degrees of freedom does; if images do not matter, the middle 95 % are the t interval.
    Variation of an image within one seed counts both for the seeds and for the images, which errs on the side of wide
    intervals.

    Args:
        outcomes: (S, N) scores for each of S seeds and N test images. With N = 1 only the seeds are resampled, with
            S = 1 only the images.

    Returns:
        (R,) means, R = `IMAGE_DRAWS` * `SEED_DRAWS`.
    """
    seeds, images = outcomes.shape
    by_seed, by_image = outcomes.mean(axis=1, dtype=np.float64), outcomes.mean(axis=0, dtype=np.float32)
    over_images = (_image_draws(images) @ by_image).astype(np.float64) / images - by_seed.mean()
    found: NDArray[np.float64] = _seed_weights(seeds) @ by_seed / seeds
    found += np.tile(over_images, SEED_DRAWS)
    return found


@functools.lru_cache(maxsize=8)
def _seed_weights(size: int) -> NDArray[np.float64]:
    """Return (R, size) weights of the seeds, which sum to `size` in each resample.

    With weights 1 + sqrt(n / (n - 1)) * (z - mean(z)) for normal z, the mean has variance s^2 / n. A factor for each
    resample, the root of n - 1 over a chi-squared number, turns the normal distribution into a t distribution.
    """
    resamples = IMAGE_DRAWS * SEED_DRAWS
    if size == 1:
        return np.ones((resamples, 1))
    generator = np.random.default_rng([1, size])
    normal = generator.standard_normal((resamples, size))
    tails = np.sqrt((size - 1) / generator.chisquare(size - 1, (resamples, 1)))
    centred = normal - normal.mean(axis=1, keepdims=True)
    weights: NDArray[np.float64] = 1 + math.sqrt(size / (size - 1)) * tails * centred
    return weights


@functools.lru_cache(maxsize=8)
def _image_draws(size: int) -> NDArray[np.float32]:
    """Return (IMAGE_DRAWS, size) counts of how often each of `size` images was drawn."""
    generator = np.random.default_rng([2, size, IMAGE_DRAWS])
    counts = np.empty((IMAGE_DRAWS, size), dtype=np.float32)
    for row in counts:
        row[:] = np.bincount(generator.integers(size, size=size), minlength=size)
    return counts


def percentile_interval(differences: NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval that holds the middle `confidence` of bootstrapped differences."""
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def differ(first: NDArray[np.float64], second: NDArray[np.float64], confidence: float = CONFIDENCE) -> bool:
    """Return whether the paired interval of two bootstrapped means excludes 0."""
    low, high = percentile_interval(first - second, confidence)
    # Single precision may leave a rounding error where nothing differs.
    return low > 1e-6 or high < -1e-6


def bootstrap_image_draws(outcomes: NDArray[np.floating] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share of hits of each seed in each resample of the test images, (`IMAGE_DRAWS`, S).

    The draws depend only on the number of images, so that methods with the same images are resampled alike.

    Args:
        outcomes: (S, N) scores for each of S seeds and N test images; with N = 1 nothing is resampled.
    """
    images = outcomes.shape[1]
    if images == 1:
        return np.tile(outcomes[:, 0].astype(np.float64), (IMAGE_DRAWS, 1))
    found = (_image_draws(images) @ outcomes.T.astype(np.float32)).astype(np.float64) / images
    # Single precision must not move what no draw moves.
    return np.asarray(found, dtype=np.float64)


def simultaneous_verdicts(
    by_seed: NDArray[np.float64], draws: NDArray[np.float64], confidence: float = CONFIDENCE
) -> NDArray[np.int64]:
    """Compare all pairs of rows by paired differences, with intervals that hold all at once.

    The statistic of two rows is their mean difference over common seeds divided by its standard error: the root of the
    differences' variance over seeds / n, or of the variance of their mean over resamples of the test images if that is
    larger. It does not depend on a third row. The limit, the same for all pairs, is the `confidence` quantile of the
    largest statistic among rows that do not differ, where deviations are drawn from normal distributions with the
    spread of each pair's differences (max-t bootstrap).

    Args:
        by_seed: (R, S) numbers of R rows and S seeds; NaN where a row lacks a seed.
        draws: (B, R, S) the same in each resample of the test images, the same images for all rows.
        confidence: Probability with which no two equal rows are told apart.

    Returns:
        (R, R): -1 where the first row's number is smaller, 1 where it is larger, 0 where the data do not say.
    """
    rows, seeds = by_seed.shape
    verdicts = np.zeros((rows, rows), dtype=np.int64)
    pairs = {(i, j): paired(by_seed[[i, j]], draws[:, [i, j]]) for i in range(rows) for j in range(i)}
    found = {places: pair for places, pair in pairs.items() if len(pair.differences) > 1}
    if not found:
        return verdicts
    noise = np.random.default_rng([3, rows, seeds]).standard_normal((MAX_DRAWS, rows, seeds))
    largest = np.zeros(MAX_DRAWS)
    for (i, j), pair in found.items():
        null = (noise[:, i] - noise[:, j])[:, pair.common] * pair.spread / math.sqrt(2)
        largest = np.maximum(largest, np.abs(_studentised(null, pair.image_variance)))
    limit = float(np.quantile(largest, confidence))
    for (i, j), pair in found.items():
        if abs(pair.statistic) > limit:
            verdicts[i, j], verdicts[j, i] = np.sign(pair.statistic), -np.sign(pair.statistic)
    return verdicts


@dataclass(frozen=True)
class Pair:
    """What the data say of two rows; no other row takes part.

    Attributes:
        common: (S,) bool, the seeds that both rows have.
        differences: (n,) first less second, on these seeds.
        image_variance: Variance of the mean difference over resamples of the test images.
    """

    common: NDArray[np.bool_]
    differences: NDArray[np.float64]
    image_variance: float

    @property
    def spread(self) -> float:
        """Standard deviation of a difference, over seeds or over images, whichever is larger."""
        return math.sqrt(max(self.differences.var(ddof=1), len(self.differences) * self.image_variance))

    @property
    def statistic(self) -> float:
        """Mean difference divided by its standard error."""
        return float(_studentised(self.differences[None], self.image_variance)[0])


def paired(by_seed: NDArray[np.float64], draws: NDArray[np.float64]) -> Pair:
    """Compare two rows.

    Args:
        by_seed: (2, S) numbers of the rows; NaN where a row lacks a seed.
        draws: (B, 2, S) the same in each resample of the test images.
    """
    differences = by_seed[0] - by_seed[1]
    common = np.isfinite(differences)
    over_images = (draws[:, 0] - draws[:, 1])[:, common]
    return Pair(common, differences[common], float(over_images.mean(axis=1).var()) if common.any() else 0.0)


def _studentised(differences: NDArray[np.float64], image_variance: float) -> NDArray[np.float64]:
    """Return mean / standard error of each row of differences (M, n); an exact 0 stays 0."""
    means = differences.mean(axis=1)
    errors = np.sqrt(np.maximum(differences.var(axis=1, ddof=1) / differences.shape[1], image_variance))
    # Rounding leaves a trace of a difference where there is none, and none of a spread where all seeds agree.
    found: NDArray[np.float64] = np.where(np.abs(means) < ROUNDING, 0.0, means / np.maximum(errors, ROUNDING))
    return found
