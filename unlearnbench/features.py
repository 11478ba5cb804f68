"""The HDF5 file of a model: features, logits and labels, from which every metric is computed.

Layout, format 1 (N test images, M limited images, K classes, D features, O outputs):

    /test/features          (N, D) float32   input of the classifier layer
    /test/logits            (N, O) float32
    /test/labels            (N,)   int64
    /test/ids               (N,)   int64     the image's number in the data set
    /limited/...            the same four for the limited training images
    /prototypes/full        sums (K, D) float64 and counts (K,) int64 over all training images
    /prototypes/limited     the same over the limited ones
    /output_classes         (O,)   int64     the class of each output; K and above are new classes

Attributes of the file: `format`, `model` (store id), `dataset`, `dataset_revision`, `num_classes`,
`forget_classes`, `seed`. Images are seen as a test shows them, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnbench.errors import InvalidFileError, MetricError
from unlearnbench.networks import captured_features, classifier, output_classes
from unlearnbench.pipeline import Batches

FORMAT = 1
FEATURE_FILE = "features.h5"
BATCH_SIZE = 512

Source = Literal["full", "limited"]


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
        attributes: Of the file: `model`, `dataset`, `dataset_revision`, `num_classes`, `forget_classes`, `seed`.
        advance: Called with the number of images after each batch.
    """
    model.eval()
    num_classes = int(attributes["num_classes"])
    width, outputs = classifier(model).in_features, classifier(model).out_features
    with h5py.File(path, "w") as file, torch.inference_mode(), captured_features(model) as captured:
        file.attrs.update({"format": FORMAT, **attributes})
        file["output_classes"] = output_classes(model).cpu().numpy()

        def forward(images: Tensor) -> tuple[Tensor, Tensor]:
            logits = model(images)
            advance(len(images))
            return captured.pop().float(), logits.float()

        part = _new_part(file, "test", len(test[1]), width, outputs)
        part["ids"][:] = test[1]
        row = 0
        for images, labels in test[0].in_order(BATCH_SIZE):
            row = _write_rows(part, row, *forward(images), labels)

        part = _new_part(file, "limited", len(limited), width, outputs)
        part["ids"][:] = train[1][limited]
        chosen = torch.zeros(len(train[1]), dtype=torch.bool, device=train[0].labels.device)
        chosen[torch.from_numpy(limited).to(chosen.device)] = True
        sums = {source: torch.zeros(num_classes, width, dtype=torch.float64) for source in ("full", "limited")}
        row, seen = 0, 0
        for images, labels in train[0].in_order(BATCH_SIZE):
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
    step = max(1, min(rows, BATCH_SIZE))
    group.create_dataset("features", (rows, width), "float32", chunks=(step, width))
    group.create_dataset("logits", (rows, outputs), "float32", chunks=(step, outputs))
    group.create_dataset("labels", (rows,), "int64")
    group.create_dataset("ids", (rows,), "int64")
    return group


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


class FeatureFile:
    """A feature file, open for reading.

    Attributes:
        path: The file.
        num_classes: K.
        forget_classes: (F,) int64, ascending.
        output_classes: (O,) int64, the class of each output.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        self.num_classes = int(file.attrs["num_classes"])
        self.forget_classes: NDArray[np.int64] = np.asarray(file.attrs["forget_classes"], dtype=np.int64)
        self.output_classes: NDArray[np.int64] = np.asarray(file["output_classes"], dtype=np.int64)

    @property
    def retain_classes(self) -> NDArray[np.int64]:
        """(K - F,) int64, ascending."""
        return np.setdiff1d(np.arange(self.num_classes), self.forget_classes)

    def array(self, name: str) -> NDArray[Any]:
        """Return a whole data set of the file, for example `test/labels`."""
        return np.asarray(self._file[name])

    def rows(self, name: str, classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows of `test/features` or the like whose label is among `classes`."""
        group = name.rpartition("/")[0]
        wanted = np.isin(self.array(f"{group}/labels"), classes)
        data = self._file[name]
        step = BATCH_SIZE * 16
        parts = [data[start : start + step][wanted[start : start + step]] for start in range(0, len(wanted), step)]
        return np.concatenate(parts) if parts else np.empty((0, *data.shape[1:]), dtype=np.float32)

    def labels(self, part: str, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the labels of `test` or `limited` that are among `classes`, in the order of `rows`.

        Raises:
            MetricError: If one of the classes has no image.
        """
        labels: NDArray[np.int64] = self.array(f"{part}/labels")
        missing = np.setdiff1d(classes, labels).tolist()
        if missing:
            raise MetricError(f"no {part} image of classes {missing}")
        return labels[np.isin(labels, classes)]

    def prototypes(self, source: Source) -> NDArray[np.float64]:
        """Return the (K, D) mean feature of each class over `full` or `limited` training images.

        Raises:
            MetricError: If a class has no image.
        """
        counts = self.array(f"prototypes/{source}/counts")
        if (counts == 0).any():
            missing = np.flatnonzero(counts == 0).tolist()
            raise MetricError(f"no training image of classes {missing} in the {source} data")
        means: NDArray[np.float64] = self.array(f"prototypes/{source}/sums") / counts[:, None]
        return means


@contextmanager
def open_features(path: str | Path) -> Iterator[FeatureFile]:
    """Open a feature file for reading.

    Raises:
        InvalidFileError: If it is missing, truncated, of another kind or of another format.
    """
    path = Path(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = "no such file" if not path.exists() else "truncated, or not an HDF5 file"
        raise InvalidFileError(f"{path}: {reason}") from error
    with file:
        if file.attrs.get("format") != FORMAT:
            found = file.attrs.get("format")
            what = "not a feature file" if found is None else f"feature format {found}, this version reads {FORMAT}"
            raise InvalidFileError(f"{path}: {what}")
        yield FeatureFile(path, file)
