"""Which training images are left: the limited data of a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from unlearnbench.seeds import derived_seed


def limited_count(available: int, share: float | None, per_class: int | None) -> int:
    """Return how many images of a class with `available` training images are left.

    Args:
        available: Training images of the class.
        share: In (0, 1]; rounded up, so that no class is empty.
        per_class: A fixed number, used if `share` is None.
    """
    if share is None:
        return per_class or 0
    # The decimal that the user wrote: in binary, 0.07 * 100 is above 7 and would be rounded up to 8.
    return math.ceil(Fraction(repr(share)) * available)


def limited_indices(labels: NDArray[np.int64], counts: Sequence[int], seed: int) -> NDArray[np.int64]:
    """Draw the limited data.

    Every class has a stream of its own, so that the images drawn from it depend on neither the forget
    classes nor the other classes.

    Args:
        labels: (N,) class indices of all training images.
        counts: K numbers of images to draw, without replacement.
        seed: The run's seed.

    Returns:
        (M,) positions in `labels`, ascending.
    """
    chosen = []
    for label, count in enumerate(counts):
        candidates = np.flatnonzero(labels == label)
        stream = np.random.default_rng(derived_seed(seed, "limited", label))
        chosen.append(stream.permutation(candidates)[:count])
    return np.sort(np.concatenate(chosen)).astype(np.int64)
