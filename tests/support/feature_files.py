"""Feature files built from arrays in memory, for the tests of metrics."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlearnbench.metrics.features import FORMAT, FeatureFile

_NUMBERS = itertools.count()


def one_hot(labels: ArrayLike, width: int) -> NDArray[np.float32]:
    """Return logits that predict the labels."""
    return np.eye(width, dtype=np.float32)[np.asarray(labels)]


def fill(
    file: h5py.File,
    features: ArrayLike,
    labels: ArrayLike,
    *,
    forget: Sequence[int],
    num_classes: int,
    logits: ArrayLike | None = None,
    limited: tuple[ArrayLike, ArrayLike] | None = None,
    limited_logits: ArrayLike | None = None,
    outputs: Sequence[int] | None = None,
    full: tuple[ArrayLike, ArrayLike] | None = None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    superclasses: Sequence[int] = (),
    probe: tuple[ArrayLike, ArrayLike] | None = None,
    stages: Sequence[tuple[ArrayLike, ArrayLike]] = (),
    seed: int = 0,
) -> None:
    """Write a feature file, making up what is left out from the test images.

    `stages` are the features of the test images and of the limited images in each stage before the last one. There are
    no images for probes if `probe` is left out.
    """
    outputs = range(num_classes) if outputs is None else outputs
    limited = (features, labels) if limited is None else limited
    full = limited if full is None else full
    file.attrs.update(
        {
            "format": FORMAT,
            "num_classes": num_classes,
            "forget_classes": list(forget),
            "seed": seed,
            "dataset": "arrays",
            "dataset_revision": "1",
            "model": "arrays",
            "stages": np.array([*(f"stage {number}" for number in range(len(stages))), "classifier input"], dtype="S"),
        }
    )
    parts: dict[str, tuple[Any, Any, Any]] = {
        "test": (features, labels, logits),
        "limited": (*limited, limited_logits),
    }
    for part, (rows, truth, scores) in parts.items():
        rows, truth = np.asarray(rows, dtype=np.float32), np.asarray(truth, dtype=np.int64)
        if scores is None:
            scores = one_hot(truth, num_classes)[:, [label for label in outputs if label < num_classes]]
        file[f"{part}/features"], file[f"{part}/labels"] = rows, truth
        file[f"{part}/logits"], file[f"{part}/ids"] = np.asarray(scores, dtype=np.float32), np.arange(len(truth))
    for source, (rows, truth) in {"full": full, "limited": limited}.items():
        rows, truth = np.asarray(rows, dtype=np.float64), np.asarray(truth)
        sums = np.stack([rows[truth == label].sum(axis=0) for label in range(num_classes)])
        file[f"prototypes/{source}/sums"] = sums
        file[f"prototypes/{source}/counts"] = np.bincount(truth, minlength=num_classes)
    width = np.asarray(features).shape[1]
    for number, (seen, known) in enumerate(stages):
        for part, rows in (("test", seen), ("limited", known)):
            file[f"{part}/stages/{number}"] = np.asarray(rows, dtype=np.float16)
        truth = np.asarray(limited[1])
        sums = np.stack([np.asarray(known)[truth == label].sum(axis=0) for label in range(num_classes)])
        for source in ("full", "limited"):
            file[f"prototypes/{source}/stages/{number}"] = sums.astype(np.float64)
    rows, truth = (np.zeros((0, width)), np.zeros(0)) if probe is None else probe
    file["probe/features"] = np.asarray(rows, dtype=np.float16)
    file["probe/labels"] = np.asarray(truth, dtype=np.int64)
    file["probe/ids"] = np.arange(len(file["probe/labels"]))
    file["classifier/weight"] = np.ones((len(outputs), width)) if weight is None else np.asarray(weight)
    file["classifier/bias"] = np.zeros(len(outputs)) if bias is None else np.asarray(bias)
    file["output_classes"] = np.asarray(outputs)
    file["superclasses"] = np.asarray(superclasses, dtype=np.int64)


def feature_file(features: ArrayLike, labels: ArrayLike, **rest: Any) -> FeatureFile:
    """Return an open feature file; see `fill`."""
    file = h5py.File(f"memory-{next(_NUMBERS)}", "w", driver="core", backing_store=False)
    fill(file, features, labels, **rest)
    return FeatureFile(Path("memory.h5"), file)


def blobs(
    seed: int, num_classes: int, per_class: int, width: int, spread: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return features (N, D) around a centre per class, the same centres for all seeds, and labels (N,)."""
    centres = np.random.default_rng(123).normal(size=(num_classes, width))
    labels = np.tile(np.arange(num_classes), per_class)
    noise = np.random.default_rng(seed).normal(size=(len(labels), width))
    return (centres[labels] + spread * noise).astype(np.float32), labels


def write_features_file(
    path: Path,
    *,
    labels: list[int],
    forget_classes: list[int],
    num_classes: int,
    logits: list[list[float]] | None = None,
    features: list[list[float]] | None = None,
    prototypes: list[list[float]] | None = None,
    limited_prototypes: list[list[float]] | None = None,
    counts: list[int] | None = None,
) -> Path:
    """Write a feature file with these test images by hand; what is left out is zero.

    The outputs stand for the classes 0, 1, 2 and so on.
    """
    rows, outputs = len(labels), len(logits[0]) if logits else num_classes
    width = len(features[0]) if features else 2
    numbers = np.array(counts or [2] * num_classes)
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": FORMAT, "num_classes": num_classes, "forget_classes": forget_classes, "seed": 0})
        file.attrs.update(
            {"model": "by-hand", "dataset": "by-hand", "dataset_revision": "1", "stages": np.array([b"all"])}
        )
        file["probe/features"] = np.zeros((0, width), dtype=np.float16)
        file["probe/labels"], file["probe/ids"] = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        file["output_classes"], file["superclasses"] = np.arange(outputs), np.zeros(0, dtype=np.int64)
        file["classifier/weight"], file["classifier/bias"] = np.zeros((outputs, width)), np.zeros(outputs)
        for part in ("test", "limited"):
            file[f"{part}/labels"], file[f"{part}/ids"] = np.array(labels), np.arange(rows)
            file[f"{part}/logits"] = np.array(logits or np.zeros((rows, outputs)), dtype=np.float32)
            file[f"{part}/features"] = np.array(features or np.zeros((rows, width)), dtype=np.float32)
        for source, means in (("full", prototypes), ("limited", limited_prototypes or prototypes)):
            file[f"prototypes/{source}/counts"] = numbers
            file[f"prototypes/{source}/sums"] = np.array(means or np.zeros((num_classes, width))) * numbers[:, None]
    return path
