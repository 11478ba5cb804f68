"""How sure a mean is, and a difference between two methods: t intervals and the paired bootstrap.

With 5 seeds an exact Wilcoxon test cannot go below p = 0.0625, so that there are no p values and no stars here.
"""

from __future__ import annotations

import base64
import functools
import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unlearnbench.record import Hits

CONFIDENCE = 0.95
RESAMPLES = 2000


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None without a value."""
    return statistics.fmean(values) if values else None


def standard_deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample (n - 1), None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Return the t interval of the mean: mean -+ t * s / sqrt(n), t with n - 1 degrees of freedom.

    None for fewer than two values. It holds for seeds drawn anew, not for test images drawn anew.
    """
    if len(values) < 2:
        return None
    half = t_quantile(len(values) - 1, confidence) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


@functools.cache
def t_quantile(degrees: int, confidence: float) -> float:
    """Return the t that a t-distributed number stays below in absolute value with a probability of `confidence`."""
    # scipy takes a third of a second to import, and most commands print no interval.
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


def unpacked(hits: Hits) -> NDArray[np.bool_]:
    """Return the (N,) outcomes that a record holds."""
    found = np.frombuffer(base64.b64decode(hits.bits), dtype=np.uint8)
    return np.unpackbits(found, count=hits.images).astype(np.bool_)


def bootstrap_means(
    outcomes: NDArray[np.floating] | NDArray[np.bool_], resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Return the mean over seeds and test images in each resample of both.

    Seeds and images are drawn with replacement, independently of each other: an image that is drawn twice counts
    twice with every seed. The draws depend on the shape alone, so that two methods with the same seeds and images are
    drawn alike and their difference, resample by resample, is paired.

    Args:
        outcomes: (S, N): for each of S seeds and N test images what the method scored there. With N = 1 only the seeds
            are drawn.
        resamples: How often.

    Returns:
        (resamples,).
    """
    seeds, images = outcomes.shape
    by_seed = _draws(seeds, resamples, 1) @ outcomes.astype(np.float32)
    found: NDArray[np.float64] = (by_seed * _draws(images, resamples, 2)).sum(axis=1, dtype=np.float64)
    found /= seeds * images
    return found


@functools.lru_cache(maxsize=8)
def _draws(size: int, resamples: int, stream: int) -> NDArray[np.float32]:
    """Return (resamples, size): how often each of `size` things was drawn."""
    generator = np.random.default_rng([stream, size, resamples])
    counts = np.empty((resamples, size), dtype=np.float32)
    for row in counts:
        row[:] = np.bincount(generator.integers(size, size=size), minlength=size)
    return counts


def percentile_interval(differences: NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval that holds the middle `confidence` of bootstrapped differences."""
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def differ(first: NDArray[np.float64], second: NDArray[np.float64], confidence: float = CONFIDENCE) -> bool:
    """Return whether the paired interval of two bootstrapped means leaves out 0."""
    low, high = percentile_interval(first - second, confidence)
    # Sums in another order may leave a trace where nothing differs.
    return low > 1e-9 or high < -1e-9
