"""Few images per forget class: which ones, the same for every method and for FDR."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from unlearnbench.errors import MetricError
from unlearnbench.split import derived_seed


def draw_shots(
    labels: NDArray[np.int64], classes: NDArray[np.int64], shots: int | None, draws: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Yield positions of `shots` images of each class, drawn without replacement.

    Args:
        labels: (M,) class indices of the images to draw from.
        classes: (F,) the classes to draw.
        shots: Images per class; None yields all images of the classes, once.
        draws: How often to draw.
        seed: The run's seed; a draw depends on it, `shots` and its number alone.

    Raises:
        MetricError: If a class has fewer images than asked for, or none.
    """
    members = [np.flatnonzero(labels == label) for label in classes]
    fewest = min((len(found) for found in members), default=0)
    if fewest < (shots or 1):
        label = classes[int(np.argmin([len(found) for found in members]))] if len(members) else "none"
        raise MetricError(f"{shots or 1} images per forget class asked for; class {label} has {fewest}")
    if shots is None:
        yield np.sort(np.concatenate(members))
        return
    for draw in range(draws):
        stream = np.random.default_rng(derived_seed(seed, "shots", shots, draw))
        yield np.sort(np.concatenate([stream.permutation(found)[:shots] for found in members]))
