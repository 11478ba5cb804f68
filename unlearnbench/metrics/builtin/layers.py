"""Metrics at every stage of the network: the forget classes must leave every layer, not only the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.linear_cka import debiased_linear_cka
from unlearnbench.metrics.builtin.prototype import prototype_accuracy
from unlearnbench.metrics.builtin.recovery import LinearProbe
from unlearnbench.metrics.builtin.views import FOLDS, RIDGE, folds
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import Measurement, Missing, References, require_finite
from unlearnbench.registry.declare import declare
from unlearnbench.seeds import derived_seed

# This label stands for all retain classes together; no class has it.
REST = -1


def _common_stages(features: FeatureFile, references: References) -> tuple[str, ...]:
    """Return the names of the stages.

    Raises:
        MetricError: If the references have others.
    """
    for name, file in (("Original", references.original), ("FDR", references.fdr_or_missing)):
        if not isinstance(file, Missing) and file.stages != features.stages:
            raise MetricError(
                f"the stages of the judged model are {', '.join(features.stages)}, those of {name} "
                f"{', '.join(file.stages)}"
            )
    return features.stages


def _farthest(
    features: FeatureFile, references: References, accuracy: Callable[[FeatureFile, int], float]
) -> Measurement:
    """Return the difference to FDR's accuracy at the stage where it is largest, with all stages in the details."""
    by_stage: dict[str, dict[str, float]] = {}
    gaps = []
    for number, name in enumerate(_common_stages(features, references)):
        judged, original, fdr = (accuracy(file, number) for file in (features, references.original, references.fdr))
        by_stage[name] = {"judged": judged, "original": original, "fdr": fdr}
        gaps.append(judged - fdr)
    chosen = int(np.argmax(np.abs(gaps)))
    return Measurement(gaps[chosen], _details(features.stages, chosen, by_stage))


def _details(stages: tuple[str, ...], chosen: int, by_stage: dict[str, Any]) -> dict[str, Any]:
    """Return the details of a metric; a record sorts their keys, so that the stages' order stands by itself."""
    return {"stage": stages[chosen], "stages": list(stages), "by_stage": by_stage}


@declare(version=2)
def layer_prototype_gap(features: FeatureFile, references: References) -> Measurement:
    """Layer prototype gap: FPAe less FDR's, at the stage of the network where it is farthest from 0.

        gap = FPAe_s - FDR's FPAe_s at the stage s with the largest |gap|

    The features of a stage are its output, averaged over positions (or the class token of a transformer).

    Args:
        features: The judged model's features.
        references: Feature files of Original and FDR of the same seed.

    Returns:
        A signed difference of fractions, in [-1, 1]: 0 is as retrained at every stage. The details hold the FPAe of
        the judged model, Original and FDR at each stage.

    Raises:
        MetricError: If a forget class has no test image, a feature is not finite, or the stages differ.

    Source: own; ERwP (ECCV 2022) demands that the classes leave every layer. Known weakness: the means over positions
    hide what early stages know about places.
    """
    return _farthest(features, references, stage_prototype_accuracy)


def stage_prototype_accuracy(file: FeatureFile, stage: int) -> float:
    """Return FPAe by the features of a stage of the network."""
    classes = file.forget_classes
    rows, labels = file.stage_rows("test", stage, classes), file.labels("test", classes)
    return file.once(
        ("layer prototype", stage), lambda: prototype_accuracy(rows, labels, file.prototypes("full", stage))
    )


@declare(version=2)
def layer_probe_recovery(features: FeatureFile, references: References) -> Measurement:
    """Layer probe recovery: a linear probe's balanced accuracy less FDR's, at the stage where it is farthest from 0.

        accuracy = mean of the shares that are found of each forget class and of the rest, F + 1 shares

    At each stage a least-squares classifier with class-balanced weights tells the F forget classes from each other and
    from the rest, which are as many retain images as there are forget images, drawn by the seed. It learns from test
    images, which no method sees: each fifth of them is judged by a probe that learned from the others.

    Args:
        features: The judged model's features.
        references: Feature files of Original and FDR of the same seed, which get the same images and folds.

    Returns:
        A signed difference of fractions, in [-1, 1]: 0 is as retrained at every stage, above 0 knowledge comes back,
        below 0 is damage. The details hold the accuracies of the judged model, Original and FDR at each stage.

    Raises:
        MetricError: If a forget class has fewer than 2 test images, a feature is not finite, or the stages differ.

    Source: own, after linear probes at every layer (Alain and Bengio, 2016). Known weakness: with few test images for
    many features a probe finds little, whatever is there.
    """
    return _farthest(features, references, stage_probe_accuracy)


def stage_probe_accuracy(file: FeatureFile, stage: int) -> float:
    """Return the balanced accuracy of probes on the features of a stage, all judged on images they did not learn from.

    Files of the same problem and seed get the same images and folds.
    """

    def compute() -> float:
        rows, labels = _probed_images(file)
        every = np.arange(file.num_classes)
        features = file.stage_rows("test", stage, every)[rows]
        return _cross_fitted_accuracy(features, labels, folds(labels, file.seed))

    return file.once(("layer probe", stage), compute)


def _probed_images(features: FeatureFile) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the forget test images and of as many others, and their labels, the others' `REST`."""
    labels = features.array("test/labels")
    features.labels("test", features.forget_classes)
    is_forget = np.isin(labels, features.forget_classes)
    others = np.flatnonzero(~is_forget)
    stream = np.random.default_rng(derived_seed(features.seed, "layer rest"))
    chosen = stream.permutation(others)[: int(is_forget.sum())]
    rows = np.sort(np.concatenate([np.flatnonzero(is_forget), chosen]))
    return rows, np.where(is_forget, labels, REST)[rows]


def _cross_fitted_accuracy(rows: NDArray[np.float32], labels: NDArray[np.int64], fold: NDArray[np.int64]) -> float:
    """Return the mean over the labels of the share that probes find which learned from other folds."""
    require_finite(stage_features=rows)
    inputs = rows.astype(np.float64)
    found = np.empty(len(labels), dtype=np.int64)
    for number in range(FOLDS):
        held = fold == number
        if held.any():
            found[held] = LinearProbe(inputs[~held], labels[~held], RIDGE).predict(inputs[held])
    return float(np.mean([(found[labels == label] == label).mean() for label in np.unique(labels)]))


@declare(version=2)
def layer_cka(
    features: FeatureFile,
    references: References,
    *,
    reference: Literal["original", "fdr"] = "original",
    images: Literal["forget", "retain"] = "forget",
) -> Measurement:
    """Layer CKA: linear CKA to a reference model at the stage of the network where it is lowest.

    Args:
        features: The judged model's features.
        references: Feature files of Original and FDR of the same seed.
        reference: Model to compare with: `original`, or `fdr` (FDR).
        images: Test images of the `forget` or of the `retain` classes.

    Returns:
        At most 1, debiased as in `linear_cka`: the same up to rotation and scale at every stage. The details hold the
        value of each stage.

    Raises:
        MetricError: If there are fewer than 4 images, a feature is not finite, all features of a stage are alike, or
            the stages differ.

    Source: Kornblith et al., ICML 2019; see `linear_cka`. Known weakness: it is dominated by the few directions of
    largest spread, and two trainings of one recipe differ too.
    """
    other = references.original if reference == "original" else references.fdr
    classes = features.classes(images)
    by_stage: dict[str, Any] = {
        name: debiased_linear_cka(
            features.stage_rows("test", number, classes), other.stage_rows("test", number, classes)
        )
        for number, name in enumerate(_common_stages(features, references))
    }
    lowest = min(range(len(by_stage)), key=lambda number: float(by_stage[features.stages[number]]))
    return Measurement(by_stage[features.stages[lowest]], _details(features.stages, lowest, by_stage))
