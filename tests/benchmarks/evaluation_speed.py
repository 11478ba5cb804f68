"""Speed and memory of evaluation into HDF5, against bare inference."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from tests.benchmarks.problem import data, device, network, wait
from tests.benchmarks.ratio import Ratio, measure
from unlearnbench.machine import peak_memory, reset_peak_memory
from unlearnbench.metrics import feature_writer
from unlearnbench.metrics.feature_writer import write_features
from unlearnbench.models.batches import Augmentation, Batches, inference_batch

IMAGES = 10_000
ATTRIBUTES = {
    "model": "benchmark",
    "dataset": "cifar100",
    "dataset_revision": "-",
    "num_classes": 100,
    "forget_classes": list(range(80, 100)),
    "seed": 0,
}
FEW = np.arange(100)
NONE = np.zeros(0, dtype=np.int64)


def write(folder: Path, test: Batches) -> None:
    """Write the features of test images, together with those of a hundred training images."""
    train = data().train
    few = Batches(train._images[:100], train.labels[:100], (0.5,) * 3, (0.25,) * 3, Augmentation())
    ids = np.arange(len(test))
    write_features(folder / "features.h5", network().eval(), (test, ids), (few, FEW), FEW, ATTRIBUTES)
    wait()


def inference() -> Ratio:
    """Measure feature extraction from 10,000 images against the network's own pass over tensors on the device."""
    model = network().eval()
    images = torch.randn(inference_batch(device(), (32, 32)), 3, 32, 32, device=device())

    def bare() -> None:
        with torch.inference_mode():
            for start in range(0, IMAGES + len(FEW), len(images)):
                model(images[: IMAGES + len(FEW) - start])
        wait()

    with tempfile.TemporaryDirectory() as folder:
        return measure(
            "features into HDF5 / bare inference", 0.9, IMAGES, lambda: write(Path(folder), data().test), bare
        )


def stages() -> Ratio:
    """Measure feature files with stages and images for probes against files without them, as format 2 had them."""
    images = data().test._images
    assert isinstance(images, torch.Tensor)
    train = Batches(images, data().test.labels, (0.5,) * 3, (0.25,) * 3, Augmentation())
    limited = np.arange(0, len(images), 10)
    model, ids = network().eval(), np.arange(len(images))

    def whole(path: Path) -> None:
        write_features(path, model, (data().test, ids), (train, ids), limited, ATTRIBUTES)
        wait()

    def plain(path: Path) -> None:
        with mock.patch.multiple(feature_writer, find_stages=lambda *_: ((), "all"), probe_indices=lambda *_: NONE):
            whole(path)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.h5"
        return measure("features with stages / without", 1 / 1.3, 2 * IMAGES, lambda: whole(path), lambda: plain(path))


def memory() -> tuple[int, int]:
    """Return the peak memory in bytes above the start for the extraction of 10,000 and of 100,000 images."""
    peaks = []
    for repeats in (1, 10):
        images = data().test._images
        assert isinstance(images, torch.Tensor)
        # A view that repeats the same images takes no memory of its own.
        positions = torch.arange(len(images)).repeat(repeats)
        test = Batches(
            Repeated(images, positions), data().test.labels.repeat(repeats), (0.5,) * 3, (0.25,) * 3, Augmentation()
        )
        with tempfile.TemporaryDirectory() as folder:
            reset_peak_memory()
            before = peak_memory() or 0
            write(Path(folder), test)
            peaks.append((peak_memory() or 0) - before)
    return peaks[0], peaks[1]


class Repeated:
    """Images that repeat those at given positions and are read on request."""

    def __init__(self, images: torch.Tensor, positions: torch.Tensor) -> None:
        self.images, self.positions = images, positions
        self.shape = tuple(images.shape[1:])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.positions)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return the images at `indices`."""
        return self.images[self.positions[torch.from_numpy(indices)]].cpu().numpy()
