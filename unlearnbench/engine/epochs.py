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
        yield EpochRecord(epoch=snapshot.epoch, image_reads=snapshot.image_reads, metrics=values)


@dataclass(frozen=True)
class Snapshot:
    """The weights at the end of an epoch.

    Attributes:
        epoch: Counted from 1.
        image_reads: Limited images that the method has read by then, by kind.
        path: The weights' file.
    """

    epoch: int
    image_reads: dict[str, int]
    path: Path


class Snapshots:
    """Saves the models that a task has handed out whenever the task ends an epoch.

    Which of them the method trains shows when it returns one; until then all are saved. The files are written
    from copies: the models, the random state and the images that count stay as they are, and the seconds that it
    takes are counted apart.

    Args:
        folder: Where the files go; made if missing.
        every: Save at the end of every so many epochs.

    Attributes:
        seconds: What saving took so far.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.seconds = 0.0
        self._folder = folder
        self._every = every
        self._models: list[nn.Module] = []
        self._epoch = 0
        self._reads: dict[int, dict[str, int]] = {}

    def watch(self, model: nn.Module) -> None:
        """Save this model too from now on."""
        if all(model is not known for known in self._models):
            self._models.append(model)

    def epoch_ended(self, image_reads: dict[str, int]) -> None:
        """Save the models if it is time."""
        self._epoch += 1
        if self._epoch % self._every:
            return
        started = monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._reads[self._epoch] = image_reads
        for number, model in enumerate(self._models):
            save_network(model, self._path(number, self._epoch))
        self.seconds += monotonic() - started

    @property
    def taken(self) -> int:
        """How many epochs there are snapshots of."""
        return len(self._reads)

    def of(self, model: nn.Module | None) -> Iterator[Snapshot]:
        """Yield the snapshots of a model, by epoch; of the one handed out last if it is None.

        A model that the task did not hand out and that nobody asked it to watch has none.
        """
        numbers = [number for number, known in enumerate(self._models) if model is None or known is model]
        for epoch, reads in self._reads.items():
            path = self._path(numbers[-1], epoch) if numbers else None
            if path is not None and path.is_file():
                yield Snapshot(epoch, reads, path)

    def remove(self) -> None:
        """Remove all files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, number: int, epoch: int) -> Path:
        return self._folder / f"{number}-{epoch}.safetensors"
