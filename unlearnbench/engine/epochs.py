"""The headline metrics after each epoch of an unlearner."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from torch import nn

from unlearnbench.metrics.compute import Material, judge
from unlearnbench.metrics.features import open_features
from unlearnbench.metrics.measurement import Missing
from unlearnbench.models.classifier import save_network
from unlearnbench.registry.component import Metric
from unlearnbench.results.record import EpochRecord
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


class Snapshots:
    """Saves the model of an unlearner at the end of its epochs.

    The files are written from copies, so that the model, the random state and the counted image passes stay as they
    are. The seconds that saving takes are counted separately.

    Args:
        folder: Folder for the files, created if missing.
        every: Number of epochs after which the model is saved.

    Attributes:
        seconds: Seconds spent on saving so far.
        ended: Number of epochs that have ended.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.seconds = 0.0
        self.ended = 0
        self._folder = folder
        self._every = every
        self._taken: list[Snapshot] = []

    def epoch_ended(self, model: nn.Module, image_passes: dict[str, int]) -> None:
        """Save the model if the epoch is one that is saved."""
        self.ended += 1
        if self.ended % self._every:
            return
        started = monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        snapshot = Snapshot(self.ended, image_passes, self._folder / f"{self.ended}.safetensors")
        save_network(model, snapshot.path)
        self._taken.append(snapshot)
        self.seconds += monotonic() - started

    def __iter__(self) -> Iterator[Snapshot]:
        """Yield the snapshots by epoch."""
        yield from self._taken

    def remove(self) -> None:
        """Remove all files of the snapshots."""
        shutil.rmtree(self._folder, ignore_errors=True)
