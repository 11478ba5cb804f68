"""The headline metrics after each epoch of a method."""

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
        yield EpochRecord(epoch=snapshot.epoch, image_passes=snapshot.image_passes, metrics=values)


@dataclass(frozen=True)
class Snapshot:
    """The weights at the end of an epoch.

    Attributes:
        epoch: Counted from 1.
        image_passes: Limited images that the method has read by then, by kind.
        path: The weights' file.
    """

    epoch: int
    image_passes: dict[str, int]
    path: Path


class Snapshots:
    """Saves the model of a method at the end of its epochs.

    The files are written from copies: the model, the random state and the images that count stay as they are, and the
    seconds that it takes are counted apart.

    Args:
        folder: Where the files go; made if missing.
        every: Save at the end of every so many epochs.

    Attributes:
        seconds: What saving took so far.
        ended: How many epochs have ended.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.seconds = 0.0
        self.ended = 0
        self._folder = folder
        self._every = every
        self._taken: list[Snapshot] = []

    def epoch_ended(self, model: nn.Module, image_passes: dict[str, int]) -> None:
        """Save the model if it is time."""
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
        """Remove all files."""
        shutil.rmtree(self._folder, ignore_errors=True)
