"""The headline metrics after each epoch of an unlearner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unlearnbench.metrics.compute import Material, judge
from unlearnbench.metrics.features import open_features
from unlearnbench.metrics.measurement import Missing
from unlearnbench.registry.component import Metric
from unlearnbench.results.records.record import EpochRecord
from unlearnbench.terms import HEADLINE

NOT_KEPT = Missing("epochs are judged by the headline metrics alone")


def judge_epochs(
    snapshots: Iterable[Snapshot], metrics: Iterable[Metric], extract: Callable[[Snapshot, Path], None]
) -> Iterator[EpochRecord]:
    """Yield the headline metrics of each snapshot, whose features are not kept.

    Args:
        snapshots: Snapshots by epoch, whose files are removed.
        metrics: Metrics of the plan, of which the headline ones are computed.
        extract: Function that writes the features of a snapshot's weights to a file.
    """
    headline = [metric for metric in metrics if metric.label in HEADLINE]
    for snapshot in snapshots:
        path = snapshot.path.with_suffix(".h5")
        extract(snapshot, path)
        with open_features(path) as features:
            found = judge(headline, Material(features, NOT_KEPT, NOT_KEPT, NOT_KEPT))
        path.unlink()
        snapshot.path.unlink()
        values = {label: record.value for label, record in found.items()}
        yield EpochRecord(epoch=snapshot.epoch, image_passes=snapshot.image_passes, metrics=values)


@dataclass(frozen=True)
class Snapshot:
    """The weights at the end of an epoch.

    Attributes:
        epoch: Number of the epoch, counted from 1.
        image_passes: Number of limited images that the unlearner has read by then, by kind.
        path: File that holds the weights.
    """

    epoch: int
    image_passes: dict[str, int]
    path: Path
