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

from unlearnbench.datasets.split import probe_indices
from unlearnbench.errors import PluginError
from unlearnbench.files import held
from unlearnbench.metrics.feature_parts import ClassSums, Column, StoredImages, columns_of, compact
from unlearnbench.metrics.features import FORMAT
from unlearnbench.models.batches import Batches, in_batches
from unlearnbench.models.classifier import Head, captured_features, classifier, classifier_name, output_classes
from unlearnbench.models.stages import captured_stages, find_stages

# Probes learn from as many images as they are judged on, which keeps the file small, and from at most these.
MOST_PROBE_IMAGES = 20_000


def write_features(
    path: Path,
    model: nn.Module,
    test: tuple[Batches, NDArray[np.int64]],
    train: tuple[Batches, NDArray[np.int64]],
    limited: NDArray[np.int64],
    attributes: dict[str, Any],
    advance: Callable[[int], None] = lambda images: None,
) -> None:
    """Run a model once over test and training images and write its features, those of its stages, and its logits.

    Memory does not grow with the number of images, because each batch is written before the next is read.

    Args:
        path: File to write; an existing one is replaced.
        model: Model on the device of the images.
        test: Test images and their (N,) ids.
        train: All training images and their ids.
        limited: (M,) positions of the limited images among the training images, ascending.
        attributes: Attributes of the file, without `format` and `stages`; see `unlearnbench.metrics.features`.
            `feature_dtype` is float32 if it is left out, and `superclasses` holds K numbers, or none.
        advance: Callback that receives the number of images after each batch.

    Raises:
        PluginError: If the model does not give its classifier one feature for each image, or lacks a stage that its
            architecture declares.
        UnwritableError: If the file cannot be written.
    """
    model.eval()
    training = train[0]
    stages, last = find_stages(model, training.plain(torch.arange(1, device=training.labels.device)))
    most = min(MOST_PROBE_IMAGES, len(test[0]))
    probe = probe_indices(training.labels.cpu().numpy(), limited, most, int(attributes["seed"]))
    with (
        held(path) as output,
        h5py.File(output, "w") as file,
        torch.inference_mode(),
        captured_features(model) as captured,
        captured_stages(model, stages) as pooled,
    ):
        _write_head(file, classifier(model), output_classes(model), attributes)
        # Names of a fixed length can be read from a damaged file, where HDF5 hangs on those of a variable one.
        file.attrs["stages"] = np.array([name.encode() for name in (*(stage.name for stage in stages), last)])
        columns = columns_of(file, stages)

        def forward(images: Tensor) -> Tensor:
            output.check()
            logits = model(images)
            advance(len(images))
            # One row for each image takes a single transfer from the device. It is a copy, because a network may use
            # the memory of its output again for the next batch.
            rows = torch.cat([_features(model, captured, len(images)), *pooled, logits.float()], dim=1)
            pooled.clear()
            return rows.cpu()

        _write_test(file, forward, test, columns)
        _write_train(file, forward, train, {"limited": limited, "probe": probe}, columns)


Forward = Callable[[Tensor], Tensor]


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


def _write_test(
    file: h5py.File, forward: Forward, test: tuple[Batches, NDArray[np.int64]], columns: tuple[Column, ...]
) -> None:
    batches, ids = test
    part = StoredImages(file, "test", columns, ids, batches.labels.cpu().numpy())
    for images, _ in in_batches(batches):
        part.add(forward(images))
    part.write()


def _write_train(
    file: h5py.File,
    forward: Forward,
    train: tuple[Batches, NDArray[np.int64]],
    positions: dict[str, NDArray[np.int64]],
    columns: tuple[Column, ...],
) -> None:
    """Write the limited images and those for probes, and the prototypes over all training images and the limited ones.

    Args:
        file: File whose head is written.
        forward: Function that returns a row for each image.
        train: All training images and their ids.
        positions: Positions of the `limited` images and of those for the `probe`, ascending.
        columns: Columns of a row. Of the images for probes only the features are kept, in half precision.
    """
    batches, ids = train
    labels = batches.labels.cpu()
    kept = {"limited": columns, "probe": (compact(columns[0]),)}
    parts, chosen = {}, {}
    for name, found in positions.items():
        parts[name] = StoredImages(file, name, kept[name], ids[found], labels[found].numpy())
        chosen[name] = torch.zeros(len(ids), dtype=torch.bool)
        chosen[name][found] = True
    sums = {source: ClassSums(int(file.attrs["num_classes"]), columns) for source in ("full", "limited")}
    seen = 0
    for images, _ in in_batches(batches):
        rows = forward(images)
        here = slice(seen, seen + len(rows))
        seen += len(rows)
        for name, part in parts.items():
            part.add(rows[chosen[name][here]])
        sums["full"].add(rows, labels[here])
        limited = chosen["limited"][here]
        sums["limited"].add(rows[limited], labels[here][limited])
    for part in parts.values():
        part.write()
    for source, found_sums in sums.items():
        found_sums.write(file.create_group(f"prototypes/{source}"))
