"""Expectations: what a manifest says about its own outcome, compared with records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from unlearnbench.experiment.manifest import Bound, Manifest
from unlearnbench.results.ranking import rows_by_problem
from unlearnbench.results.records.record import Record
from unlearnbench.results.rows import Row


@dataclass(frozen=True)
class Expectation:
    """A bound on the mean of one metric of one unlearner.

    Attributes:
        method: Label of the unlearner.
        metric: Label of the metric.
        bound: Limits that the mean over the seeds has to keep, on every problem of the manifest.
    """

    method: str
    metric: str
    bound: Bound

    @property
    def name(self) -> str:
        """The expectation in one line: `erwp.forget_accuracy <= 0.05`."""
        lower = "" if self.bound.min is None else f"{self.bound.min:g} <= "
        upper = "" if self.bound.max is None else f" <= {self.bound.max:g}"
        return f"{lower}{self.method}.{self.metric}{upper}"

    def faults(self, records: Iterable[Record]) -> list[str]:
        """Return how the records miss the expectation, with one line for each problem on which they do."""
        rows = [row for rows in rows_by_problem(records) for row in rows if row.method.label == self.method]
        if not rows:
            return [f"{self.name}: there is no record of {self.method}"]
        return [f"{row.problem.slug}: {fault}" for row in rows if (fault := self._fault(row))]

    def _fault(self, row: Row) -> str:
        for record in row.records:
            if record.value(self.metric) is None:
                metric = record.metrics.get(self.metric)
                reason = record.reason or (metric.reason if metric else None) or "it was not computed"
                return f"{self.name}: no value with seed {record.seed}: {reason}"
        mean = row.mean(self.metric) or 0.0
        # Means of fractions carry rounding errors in their last digits.
        low = self.bound.min is not None and mean < self.bound.min - 1e-9
        high = self.bound.max is not None and mean > self.bound.max + 1e-9
        values = ", ".join(f"{seed}: {value:.4f}" for seed, value in row.values(self.metric).items())
        return f"{self.name}: the mean is {mean:.4f} (by seed {values})" if low or high else ""


def expectations(manifest: Manifest) -> Iterator[Expectation]:
    """Yield the expectations of a manifest, in its order."""
    for method, bounds in manifest.expect.items():
        for metric, bound in bounds.items():
            yield Expectation(method, metric, bound)
