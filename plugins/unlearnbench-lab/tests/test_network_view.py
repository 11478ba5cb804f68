"""The network view finds what no linear reader does, and needs images that no method saw."""

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.recovery import LinearProbe
from unlearnbench.metrics.features import FeatureFile

from unlearnbench_lab.network_view import network_view_accuracy


@dataclass
class Crossed:
    """Features of a judged model as a metric reads them: two classes, each in two opposite quarters of the plane."""

    probe_images: int = 2000
    seed: int = 0
    forget_classes: list[int] = field(default_factory=lambda: [0, 1])

    def part(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        images = {"probe": self.probe_images, "test": 500}[name]
        rows = np.random.default_rng(len(name)).uniform(-1, 1, (images, 2)).astype(np.float32)
        return rows, (rows[:, 0] * rows[:, 1] > 0).astype(np.int64)

    def array(self, name: str) -> NDArray[np.float32] | NDArray[np.int64]:
        part, _, kind = name.partition("/")
        return self.part(part)[kind == "labels"]

    def rows(self, name: str, classes: list[int]) -> NDArray[np.float32]:
        return self.part(name.partition("/")[0])[0]

    def labels(self, part: str, classes: list[int]) -> NDArray[np.int64]:
        return self.part(part)[1]


def test_it_finds_a_class_that_no_line_parts_from_the_other() -> None:
    features = Crossed()
    (known, labels), (rows, truth) = features.part("probe"), features.part("test")
    linear = LinearProbe(known.astype(np.float64), labels, 0.01).predict(rows.astype(np.float64))
    assert (linear == truth).mean() < 0.6
    found = network_view_accuracy(cast(FeatureFile, features))
    assert found > 0.9
    assert found.hits is not None
    assert found.hits.mean() == pytest.approx(float(found))


def test_the_same_file_gives_the_same_value() -> None:
    once, again = (network_view_accuracy(cast(FeatureFile, Crossed(200)), epochs=2) for _ in range(2))
    assert once == again


def test_without_images_for_probes_it_has_no_value() -> None:
    with pytest.raises(
        MetricError, match=r"^the feature file has no images for probes, as the limited data are all training images$"
    ):
        network_view_accuracy(cast(FeatureFile, Crossed(0)))
