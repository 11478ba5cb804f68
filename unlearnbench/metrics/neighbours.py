"""Accuracy of the nearest neighbours among the limited images."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unlearnbench.errors import MetricError
from unlearnbench.features import FeatureFile
from unlearnbench.measurement import Measurement, require_finite

CHUNK = 1024

Distance = Literal["euclidean", "cosine"]


def neighbour_classes(
    known: NDArray[np.float32],
    known_labels: NDArray[np.int64],
    rows: NDArray[np.float32],
    neighbours: int,
    distance: Distance,
) -> NDArray[np.int64]:
    """Return the class that most of the nearest known rows have.

    Args:
        known: (M, D) features with a label.
        known_labels: (M,) class indices.
        rows: (N, D) features to classify.
        neighbours: How many of the nearest vote, at most M. Of equally near ones the first count.
        distance: `euclidean`, or `cosine` (a zero vector is at distance 1 from all).

    Returns:
        (N,) class indices; of equal votes the lowest class index.

    Raises:
        MetricError: If there are fewer known rows than neighbours, or a feature is not finite.
    """
    if not 0 < neighbours <= len(known):
        raise MetricError(f"{neighbours} nearest of {len(known)} limited images asked for")
    require_finite(limited_features=known, test_features=rows)
    width = int(known_labels.max()) + 1
    found = np.empty(len(rows), dtype=np.int64)
    base = _prepared(known, distance)
    half_squares = (base**2).sum(axis=1) / 2 if distance == "euclidean" else 0.0
    for start in range(0, len(rows), CHUNK):
        # |f - k|^2 = |f|^2 - 2 (f.k - |k|^2 / 2): the nearest have the largest bracket.
        similarity = _prepared(rows[start : start + CHUNK], distance) @ base.T - half_squares
        nearest = _largest(similarity, neighbours)
        votes = np.zeros((len(nearest), width), dtype=np.int64)
        np.add.at(votes, (np.arange(len(nearest))[:, None], known_labels[nearest]), 1)
        found[start : start + CHUNK] = votes.argmax(axis=1)
    return found


def _prepared(rows: NDArray[np.float32], distance: Distance) -> NDArray[np.float64]:
    prepared: NDArray[np.float64] = rows.astype(np.float64)
    if distance == "cosine":
        prepared /= np.maximum(np.linalg.norm(prepared, axis=1, keepdims=True), 1e-12)
    return prepared


def _largest(similarity: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return (N, count) columns of the largest entries of each row, in any order; of equal ones the first."""
    if count == 1:
        first: NDArray[np.int64] = similarity.argmax(axis=1)[:, None]
        return first
    last = similarity.shape[1] - count
    threshold = np.partition(similarity, last, axis=1)[:, last, None]
    above, equal = similarity > threshold, similarity == threshold
    missing = count - above.sum(axis=1, keepdims=True)
    chosen = above | (equal & (equal.cumsum(axis=1) <= missing))
    columns: NDArray[np.int64] = np.nonzero(chosen)[1].reshape(len(similarity), count)
    return columns


def forget_neighbour_accuracy(
    features: FeatureFile,
    *,
    neighbours: Annotated[int, Field(gt=0)] = 1,
    distance: Literal["euclidean", "cosine"] = "euclidean",
) -> Measurement:
    """Nearest-neighbour accuracy: share of the forget classes' test images that their neighbours classify right.

        (1/N) sum_i [majority class of the k limited images nearest to f_i = label_i], over the N forget test images

    The neighbours are the nearest of all limited images of all K classes, in feature space; each has one vote.

    Args:
        features: The judged model's features.
        neighbours: How many of the nearest limited images vote.
        distance: `euclidean` or `cosine`.

    Returns:
        A fraction in [0, 1]. The yardstick is FDR's value, not 0: below it means damage.

    Raises:
        MetricError: If there is no such image, too few limited ones, or a feature is not finite.

    Source: k-nearest-neighbour evaluation of frozen features (Wu et al., CVPR 2018), with plain votes. Known
    weakness: with few limited images per class many neighbours are of other classes, whatever the features.
    """
    rows = features.rows("test/features", features.forget_classes)
    labels = features.labels("test", features.forget_classes)
    found = neighbour_classes(
        features.array("limited/features"), features.array("limited/labels"), rows, neighbours, distance
    )
    hits: NDArray[np.bool_] = found == labels
    return Measurement(float(hits.mean()), hits=hits)
