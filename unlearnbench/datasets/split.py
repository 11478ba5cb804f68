"""What a seed draws of the training images: those that are left, and others that no method sees."""

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
        available: Number of training images of the class.
        share: Share in (0, 1], rounded up so that no class is empty.
        per_class: Fixed number of images, used if `share` is None.
    """
    if share is None:
        return per_class or 0
    # The share counts as the decimal that the user wrote, since 0.07 * 100 is above 7 in binary and would become 8.
    return math.ceil(Fraction(repr(share)) * available)


def limited_indices(labels: NDArray[np.int64], counts: Sequence[int], seed: int) -> NDArray[np.int64]:
    """Draw the limited data.

    Every class has a random stream of its own, so that the images drawn from it depend neither on the forget
    classes nor on the other classes.

    Args:
        labels: (N,) class indices of all training images.
        counts: K numbers of images to draw, without replacement.
        seed: Seed of the run.

    Returns:
        (M,) positions in `labels`, ascending.
    """
    chosen = []
    for label, count in enumerate(counts):
        candidates = np.flatnonzero(labels == label)
        stream = np.random.default_rng(derived_seed(seed, "limited", label))
        chosen.append(stream.permutation(candidates)[:count])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def probe_indices(labels: NDArray[np.int64], limited: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Draw training images that no method sees, the same number of each class.

    Args:
        labels: (N,) class indices of all training images.
        limited: (M,) positions of the limited images, of which none is drawn.
        most: Largest number of images.
        seed: Seed of the run.

    Returns:
        (P,) positions in `labels`, ascending; none if a class has no image outside the limited data.
    """
    outside = np.ones(len(labels), dtype=np.bool_)
    outside[limited] = False
    classes = np.unique(labels)
    members = [np.flatnonzero(outside & (labels == label)) for label in classes]
    count = min([most // max(1, len(classes)), *(len(found) for found in members)])
    chosen = [np.zeros(0, dtype=np.int64)]
    for label, found in zip(classes.tolist(), members, strict=True):
        stream = np.random.default_rng(derived_seed(seed, "probe", label))
        chosen.append(stream.permutation(found)[:count])
    return np.sort(np.concatenate(chosen)).astype(np.int64)
