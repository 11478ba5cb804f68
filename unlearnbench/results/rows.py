"""Rows of a table: an unlearner or reference on one problem, over all its seeds, and what the ranking says of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unlearnbench.metrics.metric_record import MetricRecord, unpacked
from unlearnbench.results.records.problems import distinct_titles
from unlearnbench.results.records.record import MethodRecord, ProblemRecord, Record
from unlearnbench.results.statistics import mean, standard_deviation, t_interval
from unlearnbench.terms import CONTROLS, DIFFERENCES, JUDGED, SHARES, SHORT

Word = Literal["passed", "undecided", "failed"]
# How a method's options were found, by how much was looked at for it.
DIVISIONS = ("default", "self-tuned", "oracle-tuned")


@dataclass(frozen=True)
class Judgement:
    """What the ranking rule says of a method.

    Attributes:
        keep: Whether it kept the retain classes.
        loss: Original's masked retain accuracy less its own, mean over seeds, and the bounds of the 95 % interval.
        forget: Whether its outputs forgot.
        positions: Its position between FDR (0) and Original (1) by view, mean over seeds.
        farthest: The view whose |position| is the largest on average.
        distance: Mean over seeds of the largest |position| over the views, by which methods are ordered.
        said: Where its features lie, in words.
        relative: On how many more forget images its features decide as FDR's do than as Original's do, mean over seeds,
            and the bounds of the 95 % interval over seeds and images; None where the records do not say.
        provisional: Why it has no rank yet; "" if it is not provisional.
    """

    keep: Word | None = None
    loss: tuple[float, float, float] | None = None
    forget: Word | None = None
    positions: dict[str, float] = field(default_factory=dict)
    farthest: str | None = None
    distance: float | None = None
    said: str = ""
    relative: tuple[float, float, float] | None = None
    provisional: str = ""

    @property
    def position(self) -> float | None:
        """Signed mean position of the view that is farthest from FDR."""
        return None if self.farthest is None else self.positions[self.farthest]

    @property
    def closer_to(self) -> Literal["FDR", "Original", "undecided"] | None:
        """The relative verdict: the reference whose decisions its features share more often, as far as is known."""
        if self.relative is None:
            return None
        _, low, high = self.relative
        return "FDR" if low > 0 else "Original" if high < 0 else "undecided"

    def as_json(self) -> dict[str, Any]:
        """Return the judgement as JSON values."""
        return {
            "keep": self.keep,
            "forget": self.forget,
            "provisional": bool(self.provisional),
            "position": self.position,
            "views": self.positions,
            "distance": self.distance,
            "said": self.said,
            "loss": _bounds(self.loss),
            "closer_to": self.closer_to,
            "relative": _bounds(self.relative),
        }


def _bounds(found: tuple[float, float, float] | None) -> dict[str, float] | None:
    return None if found is None else dict(zip(("mean", "low", "high"), found, strict=True))


@dataclass(frozen=True)
class Row:
    """One unlearner or reference on one problem, over all its seeds.

    Attributes:
        problem: The problem.
        method: The unlearner or reference.
        label: Name in the table.
        records: Records, ordered by seed.
        rank: Best and worst rank that the data allow; None for references, controls, provisional rows, methods that
            lost too much on the retain classes, and those without a result.
        note: Why there is no rank; "" if there is one.
        judgement: What the ranking rule says of it; None before it is ranked, and where there is nothing to judge.
        pareto: Whether no other ranked unlearner is at least as good in FAe, CAne and the distance of FPAe from FDR's
            and better in one of them.
    """

    problem: ProblemRecord
    method: MethodRecord
    label: str
    records: tuple[Record, ...]
    rank: tuple[int, int] | None = None
    note: str = ""
    pareto: bool = False
    judgement: Judgement | None = None

    @property
    def is_reference(self) -> bool:
        """Whether this is Original or FDR."""
        return self.method.role == "reference"

    @property
    def role(self) -> str:
        """`reference`, `control` or `unlearner`."""
        return "control" if not self.is_reference and self.method.name in CONTROLS else self.method.role

    @property
    def run_here(self) -> bool:
        """Whether the method was run; if not, only its weights were judged."""
        return self.method.name != JUDGED

    @property
    def division(self) -> str:
        """How its options were found: `default`, `self-tuned` from limited data alone, or `oracle-tuned` with more."""
        return max((_division(record) for record in self.records), key=DIVISIONS.index)

    @property
    def done(self) -> tuple[Record, ...]:
        """Records that have a result."""
        return tuple(record for record in self.records if record.status == "done")

    def values(self, metric: str) -> dict[int, float]:
        """Return a metric's values by seed."""
        found = {record.seed: record.value(metric) for record in self.done}
        return {seed: value for seed, value in found.items() if value is not None}

    def yardstick(self, reference: Row) -> Row:
        """Return the row of Original or FDR by which this one is judged.

        That is the table's, but for the seeds of a submission that brought its own.
        """
        own = {
            found.seed: found
            for record in self.records
            for found in record.judged_by
            if found.method.name == reference.method.name
        }
        if not own:
            return reference
        records = {record.seed: record for record in reference.records} | own
        return replace(reference, records=tuple(records[seed] for seed in sorted(records)))

    def gaps(self, fdr: Row | None) -> dict[int, float]:
        """Return FPAe less FDR's, a signed fraction, by seed; seeds that FDR lacks are left out."""
        base = self.yardstick(fdr).values(SHORT["FPAe"]) if fdr else {}
        return {seed: value - base[seed] for seed, value in self.values(SHORT["FPAe"]).items() if seed in base}

    def mean(self, metric: str) -> float | None:
        """Return a metric's mean over the seeds, or None if it has no value."""
        return mean(list(self.values(metric).values()))

    def std(self, metric: str) -> float | None:
        """Return the standard deviation over the seeds (n - 1), or None for fewer than two."""
        return standard_deviation(list(self.values(metric).values()))

    def interval(self, metric: str) -> tuple[float, float] | None:
        """Return the 95 % t interval of a metric's mean over the seeds, or None for fewer than two.

        That of a share ends where shares do, since no mean of shares can lie beyond.
        """
        found = t_interval(list(self.values(metric).values()))
        made = next((record.metrics[metric] for record in self.done if metric in record.metrics), None)
        if found is None or made is None or not is_share(made):
            return found
        lowest = -1.0 if made.name in DIFFERENCES else 0.0
        return max(lowest, found[0]), min(1.0, found[1])

    def outcomes(self, metric: str, seeds: Sequence[int]) -> NDArray[Any]:
        """Return a metric by seed and test image, (S, N), or by seed alone, (S, 1), if a record has no images."""
        records = {record.seed: record.metrics[metric] for record in self.done if metric in record.metrics}
        hits = [records[seed].hits for seed in seeds]
        images = {found.images if found else None for found in hits}
        if len(images) == 1 and None not in images:
            return np.stack([unpacked(found) for found in hits if found])
        return np.array([[records[seed].value] for seed in seeds], dtype=np.float64)

    def as_json(self) -> dict[str, Any]:
        """Return the row as JSON values; accuracies are fractions."""
        metrics = dict.fromkeys(name for record in self.records for name in record.metrics)
        return {
            "problem": self.problem.slug,
            "method": self.label,
            "role": self.role,
            "rank": self.rank,
            **(self.judgement or Judgement()).as_json(),
            "division": self.division,
            "run_here": self.run_here,
            "note": self.note,
            "pareto": self.pareto,
            "seeds": [record.seed for record in self.records],
            "failed_seeds": [record.seed for record in self.records if record.status == "failed"],
            **{name: self._metric_json(name) for name in metrics},
        }

    def _metric_json(self, metric: str) -> dict[str, Any]:
        return {
            "mean": self.mean(metric),
            "std": self.std(metric),
            "interval": self.interval(metric),
            "values": self.values(metric),
        }


def is_share(metric: MetricRecord) -> bool:
    """Return whether a metric is a share of images: a known one, or a foreign one that says which images count."""
    return metric.name in SHARES or metric.hits is not None


def _division(record: Record) -> str:
    budget = record.manifest.get("tuning")
    if not budget or record.method.role == "reference" or record.method.label in budget.get("not_searched", ()):
        return "default"
    # Unless it says otherwise, a search has judged by FDR and on training images outside the limited data.
    return "self-tuned" if budget.get("division") == "self-tuned" else "oracle-tuned"


def _precedence(record: Record) -> tuple[int, str]:
    return -DIVISIONS.index(_division(record)), record.measured.finished_at


def grouped_rows(records: Iterable[Record]) -> list[list[Row]]:
    """Group records into one list of rows for each problem, without ranks.

    Records of one label that differ in options, version or source belong to different unlearners. Each gets a row of
    its own, marked by a few digits of its hash. Problems with the same title state in it how they differ.
    """
    problems: dict[str, dict[str, dict[int, Record]]] = {}
    for record in records:
        method = record.method.id
        seeds = problems.setdefault(record.problem.id, {}).setdefault(method, {})
        known = seeds.get(record.seed)
        # Two manifests can share a cell, of which the later record counts. A search that ends at the options from
        # which it began has not tuned them.
        if known is None or _precedence(known) <= _precedence(record):
            seeds[record.seed] = record
    ordered = sorted(
        problems.values(), key=lambda methods: _natural(next(iter(next(iter(methods.values())).values())).problem.slug)
    )
    found = [_rows(methods) for methods in ordered]
    titles = distinct_titles(rows[0].problem for rows in found)
    return [[_titled(row, titles[row.problem.id]) for row in rows] for rows in found]


def _titled(row: Row, title: str) -> Row:
    return replace(row, problem=row.problem.model_copy(update={"title": title}))


def _rows(methods: dict[str, dict[int, Record]]) -> list[Row]:
    rows = []
    labels = [next(iter(seeds.values())).method.label for seeds in methods.values()]
    for label, seeds in zip(labels, methods.values(), strict=True):
        records = tuple(seeds[seed] for seed in sorted(seeds))
        first = records[0]
        shown = f"{label} [{first.method.id[:4]}]" if labels.count(label) > 1 else label
        rows.append(Row(first.problem, first.method, shown, records))
    return rows


def _natural(slug: str) -> list[str | int]:
    """Return a sort key that puts 5 forget classes before 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", slug)]


def missing_values(row: Row, metric: str) -> str:
    """Return the seeds for which a metric has no value and the reason for the first; "" if all have a value."""
    missing = [record for record in row.done if record.seed not in row.values(metric)]
    if not missing:
        return ""
    found = missing[0].metrics.get(metric)
    reason = f": {found.reason}" if found and found.reason else ""
    return f"{metric} is missing with seed {', '.join(str(record.seed) for record in missing)}{reason}"


def computed_on(records: Iterable[Record]) -> str:
    """Return the devices and precisions that records were made with, with their seeds if these differ."""
    seeds: dict[str, set[int]] = {}
    for record in records:
        found = record.environment
        place = ", ".join(str(found[key]) for key in ("device", "precision") if found.get(key))
        seeds.setdefault(place, set()).add(record.seed)
    if len(seeds) == 1:
        return next(iter(seeds))
    shown = sorted((sorted(numbers), place) for place, numbers in seeds.items())
    return "; ".join(f"{place} (seed {', '.join(map(str, numbers))})" for numbers, place in shown)
