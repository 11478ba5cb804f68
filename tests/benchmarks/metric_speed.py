"""Seconds of a processor core that all metrics of a cell take, from the feature files of three networks."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import torch

from unlearnbench.datasets.dataset import open_dataset
from unlearnbench.datasets.split import limited_count
from unlearnbench.metrics.compute import Material, judge
from unlearnbench.metrics.feature_writer import write_features
from unlearnbench.metrics.features import open_features
from unlearnbench.metrics.measurement import Costs, References
from unlearnbench.metrics.standard import standard_metrics
from unlearnbench.models.build import Network
from unlearnbench.models.device_data import LoadedData
from unlearnbench.models.recipe import TrainingRecipe

RECIPE = TrainingRecipe(epochs=1, batch_size=64, learning_rate=0.1, schedule="constant")
REPEATS = 3


@dataclass(frozen=True)
class Cell:
    """A cell whose metrics are timed.

    Attributes:
        dataset: Data set.
        architecture: Network, with random weights, because metrics take as long on those.
        forget: Number of forget classes, the last ones.
        most: Seconds that all metrics may take.
    """

    dataset: str
    architecture: str
    forget: int
    most: float


DIGITS = Cell("digits", "digits_net", 2, 0.2)
CIFAR = Cell("cifar100", "resnet20", 20, 5.0)


def seconds(cell: Cell) -> float:
    """Return the fewest seconds of a core, of some repeats, from opening the files to the last metric.

    Raises:
        DatasetError: If the data set is not on this machine.
    """
    metrics = standard_metrics()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.h5" for name in ("judged", "original", "fdr")]
        for seed, path in enumerate(paths):
            _write(cell, path, seed)
        found = []
        # The first time imports what the metrics need, which the other cells of a run have then.
        for _ in range(REPEATS + 1):
            started = process_time()
            with ExitStack() as stack:
                judged, original, fdr = (stack.enter_context(open_features(path)) for path in paths)
                costs = Costs({"forget": 1, "retain": 1}, {"forget": 0, "retain": 1})
                records = judge(metrics, Material(judged, References(original, fdr), costs))
            found.append(process_time() - started)
        failed = {label: record.reason for label, record in records.items() if record.status == "failed"}
        # Networks of random weights may agree by chance, and then there is no scale for a position.
        assert all("no scale" in (reason or "") for reason in failed.values()), failed
    return min(found[1:])


def _write(cell: Cell, path: Path, seed: int) -> None:
    dataset = open_dataset(cell.dataset)
    data = LoadedData(dataset, RECIPE, torch.device("cpu"))
    classes = len(dataset.info.class_names)
    counts = tuple(limited_count(available, 0.1, None) for available in dataset.info.train_counts)
    attributes = {
        "model": "benchmark",
        "dataset": cell.dataset,
        "dataset_revision": "-",
        "num_classes": classes,
        "forget_classes": list(range(classes - cell.forget, classes)),
        "superclasses": list(dataset.info.superclasses),
        "seed": 0,
    }
    model = Network(cell.architecture, {}, classes, dataset.info.shape).build(seed, "original")
    test, train = (data.test, data.test_part.ids), (data.train, data.train_part.ids)
    write_features(path, model, test, train, data.limited_positions(counts, 0), attributes)
