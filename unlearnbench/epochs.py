"""The headline metrics after each epoch of a method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from unlearnbench.components import HEADLINE
from unlearnbench.features import open_features
from unlearnbench.judging import Material, judge
from unlearnbench.record import EpochRecord
from unlearnbench.resolved import Metric
from unlearnbench.snapshots import Snapshot

NOT_KEPT = "epochs are judged by the headline metrics alone"


def judge_epochs(
    snapshots: Iterable[Snapshot], metrics: Iterable[Metric], extract: Callable[[Snapshot, Path], None]
) -> Iterator[EpochRecord]:
    """Yield the headline metrics of each snapshot; its features are reduced to them and not kept.

    Args:
        snapshots: By epoch; their files are removed.
        metrics: The plan's; the headline ones are computed.
        extract: Writes the features of a snapshot's weights to a file.
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
        yield EpochRecord(epoch=snapshot.epoch, image_reads=snapshot.image_reads, metrics=values)
