"""What stored features say about a model before and after a removal, class by class and attack by attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.accuracy import accuracy_hits
from unlearnbench.metrics.builtin.layers import stage_probe_accuracy, stage_prototype_accuracy
from unlearnbench.metrics.builtin.membership import attack_accuracy
from unlearnbench.metrics.builtin.prototype import class_prototype_accuracy
from unlearnbench.metrics.builtin.recovery import few_shot_relearning, probe_accuracies
from unlearnbench.metrics.features import FeatureFile

SHOTS = 5
DESTINATIONS = 4
RIDGE = 0.01


@dataclass(frozen=True)
class Files:
    """The feature files that a certificate rests on.

    Attributes:
        before: That of Original.
        after: That of the model from which classes were removed.
        fdr: That of FDR; None if there is none.
    """

    before: FeatureFile
    after: FeatureFile
    fdr: FeatureFile | None

    def each(self, measure: Callable[[FeatureFile], Any]) -> dict[str, Any]:
        """Return what a function says of each file, None for one that is not there or where it cannot be computed."""
        found: dict[str, Any] = {}
        for name, file in vars(self).items():
            try:
                found[name] = None if file is None else measure(file)
            except MetricError:
                found[name] = None
        return found


def share(hits: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a share of images as JSON values: its count, its images, its value and Wilson's 95 % interval."""
    count, images = int(hits.sum()), len(hits)
    interval = binomtest(count, images).proportion_ci(method="wilson")
    return {
        "count": count,
        "images": images,
        "value": count / images,
        "interval": [round(float(interval.low), 6), round(float(interval.high), 6)],
    }


def class_findings(files: Files, names: tuple[str, ...], limited: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return, for each class, how many of its test images are recognised before and after.

    Args:
        files: The feature files.
        names: K names of the classes.
        limited: K numbers of images that the method was given.
    """
    removed = set(files.after.forget_classes.tolist())
    train = files.before.array("prototypes/full/counts")
    found = []
    for label, name in enumerate(names):
        chosen = np.array([label])
        values = files.each(lambda file, chosen=chosen: share(_hits(file, chosen)))  # type: ignore[misc]
        facts = {"index": label, "name": name, "removed": label in removed, "train_images": int(train[label])}
        found.append({**facts, "given_images": limited[label], **values})
    return found


def _hits(file: FeatureFile, classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    return accuracy_hits(file.rows("test/logits", classes), file.labels("test", classes), file.output_classes)


def _masked_hits(file: FeatureFile) -> NDArray[np.bool_]:
    """Return the same on retain images with only the retain classes' outputs competing."""
    classes = file.retain_classes
    kept = np.isin(file.output_classes, classes)
    logits = file.rows("test/logits", classes)[:, kept]
    return accuracy_hits(logits, file.labels("test", classes), file.output_classes[kept])


def headline(files: Files) -> dict[str, Any]:
    """Return the shares of test images that say what was forgotten and what was kept, before, after and of FDR."""

    def prototype(file: FeatureFile) -> dict[str, Any]:
        hits = class_prototype_accuracy(file, file.forget_classes, "full", "euclidean").hits
        assert hits is not None
        return share(hits)

    return {
        "forget_accuracy": files.each(lambda file: share(_hits(file, file.forget_classes))),
        "retain_accuracy": files.each(lambda file: share(_hits(file, file.retain_classes))),
        "masked_retain_accuracy": files.each(lambda file: share(_masked_hits(file))),
        "forget_prototype_accuracy": files.each(prototype),
    }


def recoveries(files: Files) -> dict[str, Any]:
    """Return how far attacks bring the removed classes back, before, after and of FDR, as fractions."""
    return {
        "membership": files.each(attack_accuracy),
        "probe": files.each(lambda file: float(np.mean(probe_accuracies(file, None, 1, RIDGE)))),
        "few_shot": files.each(lambda file: float(few_shot_relearning(file, shots=_shots(file)))),
    }


def _shots(file: FeatureFile) -> int:
    """Return the number of images that few-shot relearning gets of each class: fewer where a class has fewer."""
    labels = file.array("limited/labels")
    return int(min(SHOTS, *(int((labels == label).sum()) for label in file.forget_classes)))


def stage_findings(files: Files) -> list[dict[str, Any]]:
    """Return what is left of the removed classes at every stage of the network, before, after and of FDR, as fractions.

    It is empty where the files know only the last features, or their stages differ.
    """
    stages = files.after.stages
    known = [file.stages for file in (files.before, files.fdr) if file is not None]
    if len(stages) < 2 or any(other != stages for other in known):
        return []
    found = []
    for name, measure in {"prototype": stage_prototype_accuracy, "probe": stage_probe_accuracy}.items():
        rows = [
            {"stage": stage, **files.each(lambda file, n=number, m=measure: m(file, n))}  # type: ignore[misc]
            for number, stage in enumerate(stages)
        ]
        found.append({"measure": name, "rows": rows})
    return found


def destinations(files: Files, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return for each removed class which classes its test images are taken for now, the most frequent first."""
    file, found = files.after, []
    for label in file.forget_classes.tolist():
        rows = file.rows("test/logits", np.array([label]))
        predicted, counts = np.unique(file.output_classes[rows.argmax(axis=1)], return_counts=True)
        order = np.lexsort((predicted, -counts))[:DESTINATIONS]
        goes = [
            {
                "name": names[k] if k < len(names) else "the new class of all removed ones",
                "share": float(n / len(rows)),
            }
            for k, n in zip(predicted[order].tolist(), counts[order].tolist(), strict=True)
        ]
        found.append({"name": names[label], "to": goes})
    return found
