"""Writing a model's feature file in one forward pass over test and training images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnbench.errors import PluginError
from unlearnbench.metrics.features import CHUNK_ROWS, FORMAT
from unlearnbench.models.batches import Batches, in_batches
from unlearnbench.models.classifier import Head, captured_features, classifier, classifier_name, output_classes
from unlearnbench.store import held


def write_features(
    path: Path,
    model: nn.Module,
    test: tuple[Batches, NDArray[np.int64]],
    train: tuple[Batches, NDArray[np.int64]],
    limited: NDArray[np.int64],
    attributes: dict[str, Any],
    advance: Callable[[int], None] = lambda images: None,
) -> None:
    """Run a model once over test and training images and write its features and logits.

    Memory does not grow with the number of images, because each batch is written before the next is read.

    Args:
        path: File to write; an existing one is replaced.
        model: Model on the device of the images.
        test: Test images and their (N,) ids.
        train: All training images and their ids.
        limited: (M,) positions of the limited images among the training images, ascending.
        attributes: Attributes of the file, without `format`; see `unlearnbench.metrics.features`. `feature_dtype` is
            float32 if it is left out, and `superclasses` holds K numbers, or none.
        advance: Callback that receives the number of images after each batch.

    Raises:
        PluginError: If the model does not give its classifier one feature for each image.
        UnwritableError: If the file cannot be written.
    """
    model.eval()
    with (
        held(path) as output,
        h5py.File(output, "w") as file,
        torch.inference_mode(),
        captured_features(model) as captured,
    ):
        _write_head(file, classifier(model), output_classes(model), attributes)

        def forward(images: Tensor) -> tuple[Tensor, Tensor]:
            output.check()
            logits = model(images)
            advance(len(images))
            return _features(model, captured, len(images)), logits.float()

        _write_test(file, forward, *test)
        _write_train(file, forward, *train, limited)


Forward = Callable[[Tensor], tuple[Tensor, Tensor]]


def _features(model: nn.Module, captured: list[Tensor], images: int) -> Tensor:
    """Return the features (B, D) of the last forward pass.

    Raises:
        PluginError: If the classifier did not receive one feature for each image.
    """
    width, name = classifier(model).in_features, classifier_name(model)
    if not captured:
        problem = f"never calls its classifier {name!r}"
    elif captured[-1].shape != (images, width):
        shape = tuple(captured[-1].shape)
        problem = f"gives its classifier {name!r} {shape} numbers where {images} images have {width} features each"
    else:
        return captured.pop().float()
    raise PluginError(
        f"{type(model).__name__} {problem}\n"
        "  Name the layer that is given one feature for each image in an attribute `classifier_name`"
    )


def _write_head(file: h5py.File, layer: Head, outputs: Tensor, attributes: dict[str, Any]) -> None:
    """Write the attributes, output classes, superclasses and classifier."""
    shown = {key: value for key, value in attributes.items() if key != "superclasses"}
    file.attrs.update({"format": FORMAT, "feature_dtype": "float32", **shown})
    file["superclasses"] = np.asarray(attributes.get("superclasses", ()), dtype=np.int64)
    file["output_classes"] = outputs.cpu().numpy()
    bias = torch.zeros(len(outputs)) if layer.bias is None else layer.bias.detach().float().cpu()
    file["classifier/weight"] = layer.weight.detach().float().cpu().numpy()
    file["classifier/bias"] = bias.numpy()


def _write_test(file: h5py.File, forward: Forward, batches: Batches, ids: NDArray[np.int64]) -> None:
    part = StoredImages(file, "test", ids, batches.labels)
    for images, _ in in_batches(batches):
        part.add(*forward(images))
    part.write()


def _write_train(
    file: h5py.File, forward: Forward, batches: Batches, ids: NDArray[np.int64], limited: NDArray[np.int64]
) -> None:
    """Write the limited images' features, and the prototypes over all training images and over the limited ones."""
    num_classes = int(file.attrs["num_classes"])
    positions = torch.from_numpy(limited).to(batches.labels.device)
    part = StoredImages(file, "limited", ids[limited], batches.labels[positions])
    width = part.width
    chosen = torch.zeros(len(ids), dtype=torch.bool, device=batches.labels.device)
    chosen[positions] = True
    sums = {source: torch.zeros(num_classes, width, dtype=torch.float64) for source in ("full", "limited")}
    seen = 0
    for images, labels in in_batches(batches):
        features, logits = forward(images)
        kept = chosen[seen : seen + len(labels)]
        seen += len(labels)
        sums["full"] += _class_sums(features, labels, num_classes)
        sums["limited"] += _class_sums(features[kept], labels[kept], num_classes)
        part.add(features[kept], logits[kept])
    part.write()
    for source, labels in (("full", batches.labels), ("limited", batches.labels[chosen])):
        group = file.create_group(f"prototypes/{source}")
        group["sums"] = sums[source].numpy()
        group["counts"] = torch.bincount(labels.cpu(), minlength=num_classes).numpy()


class StoredImages:
    """A group of a feature file, which holds features and logits of some images in chunks of rows.

    Args:
        file: File whose head is written.
        name: Name of the group.
        ids: (N,) ids of the images.
        labels: (N,) int64, labels of the images.

    Attributes:
        width: D, the length of a feature.
    """

    def __init__(self, file: h5py.File, name: str, ids: NDArray[np.int64], labels: Tensor) -> None:
        outputs, self.width = file["classifier/weight"].shape
        rows = len(ids)
        step = max(1, min(rows, CHUNK_ROWS))
        self._group = file.create_group(name)
        self._group.create_dataset(
            "features", (rows, self.width), file.attrs["feature_dtype"], chunks=(step, self.width)
        )
        self._group.create_dataset("logits", (rows, outputs), "float32", chunks=(step, outputs))
        for column, values in (("labels", labels.cpu().numpy()), ("ids", ids)):
            # Sorted or small integers compress to a tenth at no cost. They are one chunk that has to be written at
            # once, since every later write would compress it anew.
            self._group.create_dataset(
                column, (rows,), "int64", values, chunks=(max(1, rows),), compression="gzip", shuffle=True
            )
        # These rows wait until their chunk is full.
        self._waiting = {"features": torch.empty(step, self.width), "logits": torch.empty(step, outputs)}
        self._waits = self._written = 0

    def add(self, features: Tensor, logits: Tensor) -> None:
        """Take the next images' features (n, D) and logits (n, O), and write each chunk that they fill."""
        start = 0
        while start < len(features):
            taken = min(CHUNK_ROWS - self._waits, len(features) - start)
            for column, rows in (("features", features), ("logits", logits)):
                # Rows are copied because a network may reuse the memory of its output for the next batch.
                self._waiting[column][self._waits : self._waits + taken] = rows[start : start + taken]
            start += taken
            self._waits += taken
            if self._waits == CHUNK_ROWS:
                self.write()

    def write(self) -> None:
        """Write the rows that are waiting."""
        if self._waits:
            for column, rows in self._waiting.items():
                self._group[column][self._written : self._written + self._waits] = rows[: self._waits].numpy()
        self._written += self._waits
        self._waits = 0


def _class_sums(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return (K, D) float64 sums over the images of each class, the same on every call (no atomic adds)."""
    # The sum is computed on the CPU because not every GPU has double precision.
    members = torch.nn.functional.one_hot(labels.cpu(), num_classes).to(torch.float64)
    return members.T @ features.cpu().to(torch.float64)
