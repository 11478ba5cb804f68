"""Membership inference: can a model's outputs tell forget images of the training set from those of the test set?"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.predictions import class_probabilities, entropy
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import Measurement, References
from unlearnbench.seeds import derived_seed

# A normal number stays below this many standard deviations, on either side, in 95 of 100 cases.
NORMAL_95 = 1.96
# Smaller probabilities are raised to this one, because the probability 0 of a deleted output has no logarithm.
SMALLEST = 1e-12


def attack_inputs(
    logits: NDArray[np.float32], labels: NDArray[np.int64], output_classes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the (N, 4) numbers that an attacker reads off the outputs of each image.

    They are the log probability of the image's own class, the largest log probability, the entropy, and the lead of
    its own logit over the largest other one.
    """
    probabilities = class_probabilities(logits, output_classes, np.union1d(output_classes, labels))
    logs = np.log(np.maximum(probabilities, SMALLEST))
    own = np.searchsorted(np.union1d(output_classes, labels), labels)
    rows = np.arange(len(labels))
    others = logs.copy()
    others[rows, own] = -np.inf
    return np.stack(
        [logs[rows, own], logs.max(axis=1), entropy(probabilities), logs[rows, own] - others.max(axis=1)], 1
    )


def logistic_fit(inputs: NDArray[np.float64], targets: NDArray[np.bool_], penalty: float = 1.0) -> NDArray[np.float64]:
    """Return (D + 1,) weights of a logistic regression, the intercept last, by Newton's method.

    Minimises sum_i log(1 + exp(-s_i (w.x_i + b))) + penalty / 2 |w|^2 with s_i = 1 for targets, else -1.

    By hand: scikit-learn's LogisticRegression finds the same weights, as a test shows, and with its import it made the
    benchmark on the digits a tenth slower.
    """
    design = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    ridge = penalty * np.eye(design.shape[1])
    # The intercept is free; a trace keeps the system solvable where all inputs are constant.
    ridge[-1, -1] = 1e-9
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        likely = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (likely - targets) + ridge @ weights
        curvature = (design * (likely * (1 - likely))[:, None]).T @ design + ridge
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    return weights


def cross_validated_accuracy(
    inputs: NDArray[np.float64], members: NDArray[np.bool_], fold: NDArray[np.int64], classes: NDArray[np.int64]
) -> float:
    """Return the accuracy of a logistic attack on held-out images, averaged over classes.

    Args:
        inputs: (N, D) numbers that the attack sees of each image.
        members: (N,) bool, whether an image was a training image.
        fold: (N,) the fold in which an image is held out.
        classes: (N,) class indices.
    """
    right = np.zeros(len(inputs))
    for held in np.unique(fold):
        test = fold == held
        mean, std = inputs[~test].mean(axis=0), inputs[~test].std(axis=0)
        scaled = (inputs - mean) / np.where(std > 1e-12, std, 1.0)
        weights = logistic_fit(scaled[~test], members[~test])
        score = scaled[test] @ weights[:-1] + weights[-1]
        # A score of 0 decides for neither side and counts as half right.
        right[test] = np.where(score == 0, 0.5, (score > 0) == members[test])
    return float(np.mean([right[classes == label].mean() for label in np.unique(classes)]))


def membership_inference(
    features: FeatureFile, references: References, *, folds: Annotated[int, Field(ge=2)] = 5
) -> Measurement:
    """Membership inference on forget images, relative to FDR: cross-validated accuracy of an attack, minus FDR's.

        value = attack accuracy on the judged model's outputs - the same on FDR's

    Members are the limited forget images, which Original was trained on; non-members are forget test images. Each
    class gives the same number of both, drawn by the seed. A logistic regression on four numbers of the outputs (own
    log probability, largest log probability, entropy, lead) learns on all folds but one and is judged on that one.

    Args:
        features: The judged model's features.
        references: Feature files of the references; FDR, which saw neither kind, gets the same images and folds.
        folds: Number of folds of the cross-validation; fewer where a class has fewer members.

    Returns:
        A difference of fractions, in [-1, 1]: 0 is as retrained; above 0 the training images can be recognised. The
        details say whether the attack has `power` here: whether it tells Original, which did learn from the members,
        from FDR, by more than 1.96 standard errors of guessing. Without it a value near 0 says nothing.

    Raises:
        MetricError: If a forget class has fewer than 2 limited or test images, or a logit is not finite.

    Source: membership inference (Shokri et al., 2017; Yeom et al., 2018), class-balanced and relative to a retrained
    model. Known weakness: it is an average-case attack, weaker than one with shadow models, and with few limited
    images its chance level varies by several points.
    """
    parts, fold = _balanced(features, folds)
    judged, original, fdr = (_attack(file, parts, fold) for file in (features, references.original, references.fdr))
    members = sum(len(rows) for rows in parts["limited"])
    # Each accuracy is of 2 * members guesses, and two of them are compared.
    least = NORMAL_95 * math.sqrt(2 * 0.25 / (2 * members))
    details = {
        "judged": judged,
        "original": original,
        "fdr": fdr,
        "members": members,
        "power": original - fdr > least,
    }
    return Measurement(judged - fdr, details)


def _balanced(features: FeatureFile, folds: int) -> tuple[dict[str, list[NDArray[np.int64]]], NDArray[np.int64]]:
    """Return the rows of each forget class in both parts of the file, and the fold of each image."""
    labels = {part: features.array(f"{part}/labels") for part in ("limited", "test")}
    chosen: dict[str, list[NDArray[np.int64]]] = {"limited": [], "test": []}
    for label in features.forget_classes.tolist():
        rows = {part: np.flatnonzero(found == label) for part, found in labels.items()}
        size = min(len(found) for found in rows.values())
        if size < 2:
            raise MetricError(f"class {label} has {size} pairs of a training and a test image; 2 are needed")
        for part, found in rows.items():
            stream = np.random.default_rng(derived_seed(features.seed, "membership", part, label))
            chosen[part].append(stream.permutation(found)[:size])
    parts = min(folds, min(len(rows) for rows in chosen["limited"]))
    once = np.concatenate([np.arange(len(rows)) % parts for rows in chosen["limited"]])
    return chosen, np.concatenate([once, once])


def _attack(features: FeatureFile, parts: dict[str, list[NDArray[np.int64]]], fold: NDArray[np.int64]) -> float:
    inputs, labels, members = [], [], []
    for part in ("limited", "test"):
        rows = np.concatenate(parts[part])
        truth = features.array(f"{part}/labels")[rows]
        inputs.append(attack_inputs(features.array(f"{part}/logits")[rows], truth, features.output_classes))
        labels.append(truth)
        members.append(np.full(len(rows), part == "limited"))
    return cross_validated_accuracy(np.concatenate(inputs), np.concatenate(members), fold, np.concatenate(labels))


def attack_accuracy(features: FeatureFile, folds: int = 5) -> float:
    """Return the accuracy of `membership_inference`'s attack on one model by itself; 0.5 is guessing.

    Raises:
        MetricError: If a forget class has fewer than 2 limited or test images, or a logit is not finite.
    """
    return _attack(features, *_balanced(features, folds))
