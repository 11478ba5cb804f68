"""Recovery: what a linear probe, prototypes of a few shots, and neighbours find in frozen features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.accuracy import accuracy
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import Measurement, References, require_finite
from unlearnbench.seeds import derived_seed


class LinearProbe:
    """A least-squares classifier with class-balanced weights, in closed form.

    It minimises sum_i w_i |y_i - W z_i - b|^2 + ridge * N * |W|^2 over W and b, where y_i is the one-hot label,
    z_i the standardised feature and w_i = N / (number of classes * images of its class).

    It is written by hand because scikit-learn's RidgeClassifier, which finds the same classes as a test shows, takes
    ten times as long for the many small fits of a run.

    Args:
        features: (N, D) features to learn from.
        labels: (N,) class indices.
        ridge: Weight of the penalty, > 0.
    """

    def __init__(self, features: NDArray[np.float64], labels: NDArray[np.int64], ridge: float) -> None:
        self.classes, index = np.unique(labels, return_inverse=True)
        counts = np.bincount(index)
        weights = len(labels) / (len(counts) * counts[index])
        self._mean = np.average(features, axis=0, weights=weights)
        std = np.sqrt(np.average((features - self._mean) ** 2, axis=0, weights=weights))
        # A dead feature has no spread to divide by and stays 0.
        self._scale = np.where(std > 1e-12, std, 1.0)
        root = np.sqrt(weights)[:, None]
        inputs = root * (features - self._mean) / self._scale
        targets = np.eye(len(counts))[index]
        self._intercept = np.average(targets, axis=0, weights=weights)
        targets = root * (targets - self._intercept)
        penalty = ridge * len(labels)
        # The solution has two equal forms; the one with the smaller matrix is faster.
        if features.shape[1] <= len(labels):
            matrix = inputs.T @ inputs + penalty * np.eye(features.shape[1])
            self._weight = np.linalg.solve(matrix, inputs.T @ targets)
        else:
            matrix = inputs @ inputs.T + penalty * np.eye(len(labels))
            self._weight = inputs.T @ np.linalg.solve(matrix, targets)

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the class of each row; among equal scores the lowest class index counts."""
        scores = (features - self._mean) / self._scale @ self._weight + self._intercept
        found: NDArray[np.int64] = self.classes[scores.argmax(axis=1)]
        return found


def probe_accuracies(features: FeatureFile, shots: int | None, draws: int, ridge: float) -> list[float]:
    """Return the probe's accuracy on the forget classes' test images, for each draw.

    The probe learns from all limited retain images and `shots` limited images of each forget class.
    """
    inputs = features.array("limited/features").astype(np.float64)
    labels = features.array("limited/labels")
    test = features.rows("test/features", features.forget_classes).astype(np.float64)
    truth = features.labels("test", features.forget_classes)
    require_finite(limited_features=inputs, test_features=test)
    retain = np.flatnonzero(~np.isin(labels, features.forget_classes))
    found = []
    for chosen in draw_shots(labels, features.forget_classes, shots, draws, features.seed):
        rows = np.concatenate([retain, chosen])
        probe = LinearProbe(inputs[rows], labels[rows], ridge)
        found.append(float((probe.predict(test) == truth).mean()))
    return found


def probe_recovery(
    features: FeatureFile,
    references: References,
    *,
    shots: Annotated[int, Field(gt=0)] | None = None,
    draws: Annotated[int, Field(gt=0)] = 5,
    ridge: Annotated[float, Field(gt=0)] = 0.01,
) -> Measurement:
    """Linear-probe recovery: accuracy of a new linear classifier on the forget classes, minus FDR's.

        recovery = accuracy of the probe on the judged model's features - the same on FDR's

    The features (M, D) are frozen. A least-squares classifier with class-balanced weights and a ridge penalty learns
    from all limited retain images and `shots` limited images of each forget class. It is judged on the forget
    classes' test images, with all K classes competing.

    Args:
        features: The judged model's features.
        references: Feature files of the references; FDR of the same seed gets the same images.
        shots: Images of each forget class to learn from; None takes all limited ones.
        draws: Number of times that images are drawn; the value is the mean over the draws.
        ridge: Weight of the penalty.

    Returns:
        A difference of fractions, in [-1, 1]: 0 is as retrained; above 0 knowledge comes back; below 0 is damage.

    Raises:
        MetricError: If a forget class has fewer limited images, or a feature is not finite.

    Source: linear probes (Alain and Bengio, 2016) as they are used for unlearning; least squares in closed form
    replaces a logistic fit, so that it is fast and has no stopping rule. Known weakness: it does not see what a
    non-linear probe would find, and wide features fit few images by chance, hence the difference to FDR.
    """
    judged = probe_accuracies(features, shots, draws, ridge)
    fdr = probe_accuracies(references.fdr, shots, draws, ridge)
    means = [float(np.mean(accuracies)) for accuracies in (judged, fdr)]
    details = {"judged": means[0], "fdr": means[1], "judged_by_draw": judged, "fdr_by_draw": fdr}
    return Measurement(means[0] - means[1], details)


def prototype_rows(
    features: NDArray[np.float64], labels: NDArray[np.int64], classes: NDArray[np.int64], norm: float
) -> NDArray[np.float64]:
    """Return (F, D) rows of a classifier: each class's mean feature scaled to a norm, or 0 if that mean is 0."""
    means = np.stack([features[labels == label].mean(axis=0) for label in classes])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    rows: NDArray[np.float64] = norm * means / np.maximum(lengths, 1e-12)
    return rows


def few_shot_relearning(
    features: FeatureFile,
    *,
    shots: Annotated[int, Field(gt=0)] | None = 5,
    draws: Annotated[int, Field(gt=0)] = 5,
) -> Measurement:
    """Few-shot prototype relearning: FAe after the classifier's forget rows became k-shot prototypes.

        w_k = norm * m_k / |m_k|, m_k the mean feature (D,) of the shots, norm the mean of |w_j| over retain rows

    The row of each forget class becomes the mean feature of `shots` of its limited images, scaled to the mean norm of
    the retain rows, and its bias becomes the mean of theirs. All other outputs stay, and all compete. Nothing is
    trained.

    Args:
        features: The judged model's features, which hold its classifier too.
        shots: Limited images of each forget class; None takes all of them.
        draws: Number of times that images are drawn; the value is the mean over the draws.

    Returns:
        A fraction in [0, 1]; the lower, the harder the class is to bring back. The yardstick is FDR's value. The
        details hold CAne after the same replacement, which is the price of the attack.

    Raises:
        MetricError: If a class has too few images, the model has no retain output, or a feature is not finite.

    Source: weight imprinting (Qi, Brown, Lowe; CVPR 2018) as an attack on unlearned models. Known weakness: features
    behind a ReLU are all positive, so that a prototype row is near every image and attracts retain images too.
    """
    weight, bias = (features.array(f"classifier/{name}").astype(np.float64) for name in ("weight", "bias"))
    retain_rows = np.isin(features.output_classes, features.retain_classes)
    if not retain_rows.any():
        raise MetricError("the model has no output for a retain class")
    require_finite(classifier=weight, limited_features=features.array("limited/features"))
    norm, offset = float(np.linalg.norm(weight[retain_rows], axis=1).mean()), float(bias[retain_rows].mean())
    known = features.rows("limited/features", features.forget_classes).astype(np.float64)
    labels = features.labels("limited", features.forget_classes)
    accuracies: dict[str, list[float]] = {"forget": [], "retain": []}
    for chosen in draw_shots(labels, features.forget_classes, shots, draws, features.seed):
        rows = prototype_rows(known[chosen], labels[chosen], features.forget_classes, norm)
        for images in ("forget", "retain"):
            accuracies[images].append(_accuracy_with(features, features.classes(images), rows, offset))
    means = {images: float(np.mean(values)) for images, values in accuracies.items()}
    return Measurement(means["forget"], {"retain_accuracy": means["retain"], "by_draw": accuracies["forget"]})


def _accuracy_with(
    features: FeatureFile, classes: NDArray[np.int64], rows: NDArray[np.float64], offset: float
) -> float:
    """Return the accuracy on the test images of `classes` with new rows for the forget classes."""
    kept = ~np.isin(features.output_classes, features.forget_classes)
    relearned = features.rows("test/features", classes) @ rows.T + offset
    logits = np.concatenate([features.rows("test/logits", classes)[:, kept], relearned], axis=1)
    outputs = np.concatenate([features.output_classes[kept], features.forget_classes])
    order = np.argsort(outputs, kind="stable")
    return accuracy(logits[:, order], features.labels("test", classes), outputs[order])


def draw_shots(
    labels: NDArray[np.int64], classes: NDArray[np.int64], shots: int | None, draws: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of `shots` images of each class, drawn without replacement.

    Args:
        labels: (M,) class indices of the images to draw from.
        classes: (F,) classes to draw.
        shots: Number of images per class; None yields all images of the classes, once.
        draws: Number of draws.
        seed: Seed of the run; a draw depends on it, on `shots` and on its own number alone.

    Raises:
        MetricError: If a class has no images, or fewer than asked for.
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


CHUNK = 1024

Distance = Literal["euclidean", "cosine"]


def neighbour_classes(
    known: NDArray[np.float32],
    known_labels: NDArray[np.int64],
    rows: NDArray[np.float32],
    neighbours: int,
    distance: Distance,
) -> NDArray[np.int64]:
    """Return the majority class of the known rows that are nearest to each row.

    It is written by hand because scikit-learn's neighbours leave open which of several equally near rows count.

    Args:
        known: (M, D) features with a label.
        known_labels: (M,) class indices.
        rows: (N, D) features to classify.
        neighbours: Number of nearest rows that vote, at most M; among equally near ones the first count.
        distance: `euclidean`, or `cosine` (a zero vector is at distance 1 from all).

    Returns:
        (N,) class indices; among classes with equal votes the lowest.

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
        # |f - k|^2 = |f|^2 - 2 (f.k - |k|^2 / 2), so that the nearest rows have the largest bracket.
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
    """Return the (N, count) columns of the largest entries of each row, in any order; the first count among equals."""
    if count == 1:
        first: NDArray[np.int64] = similarity.argmax(axis=1)[:, None]
        return first
    last = similarity.shape[1] - count
    threshold = np.partition(similarity, last, axis=1)[:, last, None]
    chosen = similarity >= threshold
    tied = np.flatnonzero(chosen.sum(axis=1) > count)
    if len(tied):
        above, equal = similarity[tied] > threshold[tied], similarity[tied] == threshold[tied]
        missing = count - above.sum(axis=1, keepdims=True)
        chosen[tied] = above | (equal & (equal.cumsum(axis=1) <= missing))
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

    The neighbours are the nearest among all limited images of all K classes, in feature space; each has one vote.

    Args:
        features: The judged model's features.
        neighbours: Number of nearest limited images that vote.
        distance: Distance between features: `euclidean` or `cosine`.

    Returns:
        A fraction in [0, 1]. The yardstick is FDR's value, not 0: a value below it means damage.

    Raises:
        MetricError: If there is no such image, there are too few limited ones, or a feature is not finite.

    Source: k-nearest-neighbour evaluation of frozen features (Wu et al., CVPR 2018), with plain votes. Known
    weakness: with few limited images per class many neighbours belong to other classes, whatever the features.
    """
    rows = features.rows("test/features", features.forget_classes)
    labels = features.labels("test", features.forget_classes)
    found = neighbour_classes(
        features.array("limited/features"), features.array("limited/labels"), rows, neighbours, distance
    )
    hits: NDArray[np.bool_] = found == labels
    return Measurement(float(hits.mean()), hits=hits)
