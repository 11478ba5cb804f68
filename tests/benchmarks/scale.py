"""How far a run scales: its real schedule, played through with seconds from records, on more and more workers.

python -m tests.benchmarks.scale RECORDS MANIFEST... [--workers 1 8 64] [--overhead 5]
"""

from __future__ import annotations

import argparse
import heapq
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearnbench.engine.schedule import Schedule, Task
from unlearnbench.experiment.plan import Cell, make_plan
from unlearnbench.experiment.resolve import resolve
from unlearnbench.results.records.load import load_records
from unlearnbench.results.records.record import Record


@dataclass(frozen=True)
class Rates:
    """Seconds as records have them.

    Attributes:
        train: Seconds of one image pass of a training.
        features: Seconds of one image pass of writing features.
        metrics: Seconds of the metrics of a cell.
        unlearn: Seconds of one image pass of each unlearner, by its name; of a whole run if it reads no image.
    """

    train: float
    features: float
    metrics: float
    unlearn: dict[str, float]

    def seconds(self, task: Task) -> float:
        """Return how long a stage takes."""
        cell = task.cell
        if task.makes_record and cell.is_reference:
            return self.metrics
        info = cell.problem.info
        made = self.features * (sum(info.train_counts) + sum(info.test_counts))
        if cell.reference is not None:
            return self.train * cell.reference.image_passes + made
        return self.unlearn.get(cell.method.name, self.train) * (cell.image_passes or 1) + made + self.metrics


def rates(records: Iterable[Record]) -> Rates:
    """Return the seconds that records measured, each the median of those that say it."""
    train, features, metrics = [], [], []
    unlearn: dict[str, list[float]] = {}
    for record in records:
        seconds = record.measured.seconds
        images = record.problem.train_images + record.problem.test_images
        if record.status == "done" and "features" in seconds:
            features.append(seconds["features"] / images)
            metrics.append(seconds.get("metrics", 0.0))
            if seconds.get("train"):
                train.append(seconds["train"] / sum(record.image_passes.values()))
            elif "unlearn" in seconds:
                passes = sum(record.image_passes.values()) or 1
                unlearn.setdefault(record.method.name, []).append(seconds["unlearn"] / passes)
    medians = {name: statistics.median(values) for name, values in unlearn.items()}
    return Rates(statistics.median(train), statistics.median(features), statistics.median(metrics), medians)


def makespan(cells: Sequence[Cell], found: Rates, workers: int, overhead: float) -> tuple[float, float]:
    """Return how long a run takes, and the sum of the seconds of its stages.

    Args:
        cells: All cells of the run.
        found: Seconds of the stages.
        workers: Number of stages at a time.
        overhead: Seconds that the engine adds to each stage.
    """
    schedule = Schedule(cells, ())
    running: list[tuple[float, int, Task]] = []
    now = work = 0.0
    begun = 0
    while not schedule.over:
        while len(running) < workers and (task := schedule.take()):
            seconds = found.seconds(task)
            work += seconds
            begun += 1
            heapq.heappush(running, (now + seconds + overhead, begun, task))
        now, _, task = heapq.heappop(running)
        schedule.end(task, recorded=task.makes_record)
    return now, work


def longest_chain(cells: Sequence[Cell], found: Rates) -> float:
    """Return the seconds below which no number of workers comes: the longest reference and cell one after the other."""
    references = max(found.seconds(Task(cell, makes_record=False)) for cell in cells if cell.is_reference)
    others = [found.seconds(Task(cell, makes_record=True)) for cell in cells if not cell.is_reference]
    return references + max(others, default=0.0)


def main() -> None:
    """Print one row for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=Path)
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--overhead", type=float, default=5.0)
    given = parser.parse_args()
    found = rates(load_records(given.records, unranked=True))
    cells = [cell for path in given.manifests for cell in make_plan(resolve(path, to_run=False)).cells]
    bound = longest_chain(cells, found)
    print(
        f"{len(cells)} cells; no number of workers takes less than {bound / 3600:.2f} h, one reference and one method"
    )
    for workers in given.workers:
        span, work = makespan(cells, found, workers, given.overhead)
        print(f"{workers:>4} workers: {span / 3600:8.2f} h, efficiency {100 * work / (workers * span):5.1f} %")


if __name__ == "__main__":
    main()
