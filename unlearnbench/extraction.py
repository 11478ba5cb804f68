"""The writer of a model's feature file: one forward pass over test and training images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnbench.features import CHUNK_ROWS, FORMAT
from unlearnbench.networks import captured_features, classifier, output_classes
from unlearnbench.pipeline import Batches


def write_features(
    path: Path,
    model: nn.Module,
    test: tuple[Batches, NDArray[np.int64]],
    train: tuple[Batches, NDArray[np.int64]],
    limited: NDArray[np.int64],
    attributes: dict[str, Any],
    advance: Callable[[int], None] = lambda images: None,
) -> None:
    """Run a model once over test and training images and write what it gives.

    Memory does not grow with the number of images: each batch goes to the file before the next is read.

    Args:
        path: Written anew.
        model: On the device of the images.
        test: The test images and their (N,) ids.
        train: All training images and their ids.
        limited: (M,) positions of the limited images among the training images, ascending.
        attributes: Of the file, without `format` and `feature_dtype`; see `unlearnbench.features`. The
            `superclasses` among them are K numbers, or none.
        advance: Called with the number of images after each batch.
    """
    model.eval()
    num_classes = int(attributes["num_classes"])
    width, outputs = classifier(model).in_features, classifier(model).out_features
    with h5py.File(path, "w") as file, torch.inference_mode(), captured_features(model) as captured:
        superclasses = np.asarray(attributes.get("superclasses", ()), dtype=np.int64)
        shown = {key: value for key, value in attributes.items() if key != "superclasses"}
        file.attrs.update({"format": FORMAT, "feature_dtype": "float32", **shown})
        file["superclasses"] = superclasses
        file["output_classes"] = output_classes(model).cpu().numpy()
        _write_classifier(file, classifier(model))

        def forward(images: Tensor) -> tuple[Tensor, Tensor]:
            logits = model(images)
            advance(len(images))
            return captured.pop().float(), logits.float()

        part = _new_part(file, "test", len(test[1]), width, outputs)
        part["ids"][:] = test[1]
        row = 0
        for images, labels in test[0].in_order(CHUNK_ROWS):
            row = _write_rows(part, row, *forward(images), labels)

        part = _new_part(file, "limited", len(limited), width, outputs)
        part["ids"][:] = train[1][limited]
        chosen = torch.zeros(len(train[1]), dtype=torch.bool, device=train[0].labels.device)
        chosen[torch.from_numpy(limited).to(chosen.device)] = True
        sums = {source: torch.zeros(num_classes, width, dtype=torch.float64) for source in ("full", "limited")}
        row, seen = 0, 0
        for images, labels in train[0].in_order(CHUNK_ROWS):
            features, logits = forward(images)
            kept = chosen[seen : seen + len(labels)]
            seen += len(labels)
            sums["full"] += _class_sums(features, labels, num_classes)
            sums["limited"] += _class_sums(features[kept], labels[kept], num_classes)
            row = _write_rows(part, row, features[kept], logits[kept], labels[kept])
        every_label = train[0].labels
        for source, labels in (("full", every_label), ("limited", every_label[chosen])):
            group = file.create_group(f"prototypes/{source}")
            group["sums"] = sums[source].numpy()
            group["counts"] = torch.bincount(labels.cpu(), minlength=num_classes).numpy()


def _new_part(file: h5py.File, name: str, rows: int, width: int, outputs: int) -> h5py.Group:
    group = file.create_group(name)
    step = max(1, min(rows, CHUNK_ROWS))
    group.create_dataset("features", (rows, width), "float32", chunks=(step, width))
    group.create_dataset("logits", (rows, outputs), "float32", chunks=(step, outputs))
    for column in ("labels", "ids"):
        # Sorted or small whole numbers: to compress them costs nothing and takes them to a tenth.
        group.create_dataset(column, (rows,), "int64", chunks=(max(1, rows),), compression="gzip", shuffle=True)
    return group


def _write_classifier(file: h5py.File, layer: nn.Linear) -> None:
    weight = layer.weight.detach().float().cpu()
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach().float().cpu()
    file["classifier/weight"], file["classifier/bias"] = weight.numpy(), bias.numpy()


def _write_rows(part: h5py.Group, row: int, features: Tensor, logits: Tensor, labels: Tensor) -> int:
    """Write a batch from `row` on and return the next row."""
    end = row + len(labels)
    if end > row:
        part["features"][row:end] = features.cpu().numpy()
        part["logits"][row:end] = logits.cpu().numpy()
        part["labels"][row:end] = labels.cpu().numpy()
    return end


def _class_sums(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return (K, D) float64 sums over the images of each class, the same on every call (no atomic adds)."""
    members = torch.nn.functional.one_hot(labels, num_classes).to(torch.float64)
    return (members.T @ features.to(torch.float64)).cpu()
