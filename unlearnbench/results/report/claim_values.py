"""The values that claims are about, looked up in records."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unlearnbench.results.records.record import EpochRecord, ProblemRecord, Record
from unlearnbench.results.report.claims import Value
from unlearnbench.results.report.published import is_papers_own
from unlearnbench.results.rows import Row, grouped_rows
from unlearnbench.results.statistics import standard_deviation
from unlearnbench.terms import SHARES

# The paper itself chose these options anew for each data set.
TUNED = ("beta", "kappa")


class NotMeasuredError(Exception):
    """A value is missing from the records; the text says which one and why."""


@dataclass(frozen=True)
class Measured:
    """A value by seed, in percent if it is a share.

    Attributes:
        name: Name of what was measured.
        by_seed: Values by seed; at least one.
    """

    name: str
    by_seed: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.by_seed.values())

    def moved(self, sign: float = 1.0, by: float = 0.0) -> Measured:
        """Return the value times a sign, plus a number."""
        return Measured(self.name, {seed: sign * value + by for seed, value in self.by_seed.items()})

    def apart_from(self, other: Measured) -> Measured:
        """Return the distance to another value, without a sign in each seed, over the seeds that both have.

        Raises:
            NotMeasuredError: If there is no such seed.
        """
        signed = self.less(other)
        return Measured(signed.name, {seed: abs(value) for seed, value in signed.by_seed.items()})

    def less(self, other: Measured) -> Measured:
        """Return the difference to another value, over the seeds that both have.

        Raises:
            NotMeasuredError: If there is no such seed.
        """
        seeds = sorted(self.by_seed.keys() & other.by_seed.keys())
        if not seeds:
            raise NotMeasuredError(f"{self.name} and {other.name} have no seed in common")
        values = {seed: self.by_seed[seed] - other.by_seed[seed] for seed in seeds}
        return Measured(f"{self.name} less {other.name}", values)

    def __str__(self) -> str:
        std = standard_deviation(list(self.by_seed.values()))
        seeds = len(self.by_seed)
        spread = "" if std is None else f" ± {std:.2f}"
        return f"{self.mean:.2f}{spread} ({seeds} {'seed' if seeds == 1 else 'seeds'})"


@dataclass(frozen=True)
class Case:
    """What a claim is tested on: one data set, network and training, with the same forget classes.

    Attributes:
        limited: Records of unlearners that had part of the training images, all with one kind of limited data.
        full: Records of unlearners that had all training images.
        drawn: Where `limited` is the share of a party, records of unlearners that had limited data drawn from all
            images, with the same original.
        own: Names of manifests whose records take precedence if an unlearner was run with several settings.
    """

    limited: tuple[Record, ...]
    full: tuple[Record, ...]
    own: frozenset[str] = frozenset()
    drawn: tuple[Record, ...] = ()

    @property
    def problem(self) -> ProblemRecord:
        """The problem with limited data, or that with full data if there are no such records."""
        return (self.limited or self.full)[0].problem

    @property
    def problems(self) -> tuple[str, ...]:
        """Ids of the problems with limited, with full and with drawn data."""
        return tuple(records[0].problem.id if records else "" for records in (self.limited, self.full, self.drawn))

    def records(self, data: str) -> tuple[Record, ...]:
        """Return the records with `limited`, `full` or `drawn` data."""
        return {"full": self.full, "drawn": self.drawn}.get(data, self.limited)


def cases(records: Iterable[Record]) -> list[Case]:
    """Return the cases that records hold."""
    worlds: dict[tuple[str, ...], dict[tuple[str, tuple[int, ...]], list[Record]]] = {}
    for record in records:
        # A share is told by its party, since its numbers differ from seed to seed.
        left = record.problem.limited if is_share(record.problem) else "", record.problem.limited_counts
        worlds.setdefault(_world(record.problem), {}).setdefault(left, []).append(record)
    found = []
    for by_limited in worlds.values():
        full = [tuple(group) for group in by_limited.values() if _is_full(group[0].problem)]
        limited = [tuple(group) for group in by_limited.values() if not _is_full(group[0].problem)]
        # Without a federation there is no share, and nothing to compare it with.
        shares = [group for group in limited if is_share(group[0].problem)]
        drawn = next((group for group in limited if group not in shares), ()) if shares else ()
        groups = [(group, drawn if group in shares else ()) for group in limited] or [((), ())]
        found += [Case(group, full[0] if full else (), drawn=beside) for group, beside in groups]
    return sorted(found, key=lambda case: (case.problem.slug, len(case.problem.forget_classes)))


def _is_full(problem: ProblemRecord) -> bool:
    return sum(problem.limited_counts) == problem.train_images


def is_share(problem: ProblemRecord) -> bool:
    """Return whether what is left is the share of a party."""
    return (problem.federation or {}).get("party") is not None


def _world(problem: ProblemRecord) -> tuple[str, ...]:
    """Return what two problems must share to be compared: everything but the limited data and the names."""
    values = problem.model_dump(exclude={"id", "slug", "title", "limited", "limited_counts"})
    if problem.federation is not None:
        values["federation"] = {key: value for key, value in problem.federation.items() if key != "party"}
    return tuple(f"{key}={value}" for key, value in values.items())


def measured(value: Value, case: Case) -> Measured:
    """Return a value at the end of unlearning, or after one epoch.

    Raises:
        NotMeasuredError: If the records do not hold it.
    """
    found = _plain(value, case)
    if value.minus is not None:
        found = found.less(measured(value.minus, case))
    if value.apart_from is not None:
        found = found.apart_from(measured(value.apart_from, case))
    return found


def epochs_of(value: Value, case: Case) -> list[int]:
    """Return the epochs after which all seeds of an unlearner were judged.

    Raises:
        NotMeasuredError: If there is no such epoch.
    """
    row = _row(value, case, lambda record: bool(record.epochs))
    common = set.intersection(*({epoch.epoch for epoch in record.epochs} for record in row.done))
    if not common:
        raise NotMeasuredError(f"{name_of(value)}: its seeds have no epoch in common")
    return sorted(common)


def name_of(value: Value) -> str:
    """Return a value in words."""
    options = [f"{key}={setting}" for key, setting in {**value.options, **value.metric_options}.items()]
    epoch = [] if value.epoch is None else [f"epoch {value.epoch}"]
    data = {"full": ["all training images"], "drawn": ["images drawn from all"]}.get(value.data, [])
    rest = ", ".join([*options, *epoch, *data])
    return f"{value.metric} of {value.method}{f' ({rest})' if rest else ''}"


def _plain(value: Value, case: Case) -> Measured:
    if value.epoch is not None:
        row = _row(value, case, lambda record: bool(record.epochs))
        found = {record.seed: _at_epoch(record, value) for record in row.done}
    else:
        row = _row(value, case, lambda record: _metric(record, value) is not None)
        found = {record.seed: _metric(record, value) for record in row.done}
    factor = 100.0 if value.metric in SHARES else 1.0
    known = {seed: factor * number for seed, number in found.items() if number is not None}
    if not known:
        raise NotMeasuredError(f"{name_of(value)}: not measured")
    return Measured(name_of(value), known)


def _at_epoch(record: Record, value: Value) -> float | None:
    wanted: EpochRecord | None
    if value.epoch == "last":
        wanted = record.epochs[-1]
    else:
        wanted = next((epoch for epoch in record.epochs if epoch.epoch == value.epoch), None)
    return wanted.metrics.get(value.metric) if wanted else None


def _metric(record: Record, value: Value) -> float | None:
    """Return a record's value of a metric with options; if several fit, the one with the shortest label counts."""
    if value.metric == "speed_up_seconds":
        return record.measured.speed_up_seconds
    if value.metric == "speed_up_epochs":
        return _speed_up_epochs(record)
    fitting = [
        label
        for label, metric in record.metrics.items()
        if metric.name == value.metric
        and all(_same(metric.options.get(key), wanted) for key, wanted in value.metric_options.items())
    ]
    return record.value(min(fitting, key=lambda label: (len(label.split()), label))) if fitting else None


def _speed_up_epochs(record: Record) -> float | None:
    """Return FDR's image passes over those of an unlearner's epochs, without extra reads such as a relevance search."""
    epochs, speed_up = record.method.options.get("epochs"), record.value("speed_up")
    if not epochs or speed_up is None:
        return None
    return speed_up * sum(record.image_passes.values()) / (int(epochs) * sum(record.limited_counts))


def _same(found: Any, wanted: Any) -> bool:
    return bool(found == wanted)


def _row(value: Value, case: Case, holds: Callable[[Record], bool]) -> Row:
    """Return the row of a value's unlearner, made of the records that hold what is asked for.

    Raises:
        NotMeasuredError: If no record fits, or records of different unlearners do.
    """
    fitting = _of_method(case.records(value.data), value)
    fitting = [record for record in fitting if record.manifest_name in case.own] or fitting
    if not fitting:
        raise NotMeasuredError(f"{name_of(value)}: not run")
    holding = [record for record in fitting if record.status == "done" and holds(record)]
    if not holding:
        failed = next((f"{record.status}: {record.reason}" for record in fitting if record.status != "done"), None)
        raise NotMeasuredError(f"{name_of(value)}: {failed or 'not measured'}")
    rows = distinct_rows([row for rows in grouped_rows(holding) for row in rows])
    plain = [row for row in rows if row.method.label == value.method]
    chosen = plain if len(plain) == 1 else rows
    if len(chosen) > 1:
        labels = ", ".join(sorted(row.label for row in chosen))
        raise NotMeasuredError(f"{name_of(value)}: {len(chosen)} rows fit: {labels}")
    return chosen[0]


def distinct_rows(rows: Sequence[Row]) -> list[Row]:
    """Return rows without those that differ from another only in their label; the one with the most seeds stays."""
    found: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: (-len(row.done), row.label)):
        found.setdefault(row.method.model_copy(update={"label": ""}).id, row)
    return list(found.values())


def _of_method(records: Sequence[Record], value: Value) -> list[Record]:
    """Return the records of a value's unlearner with its options.

    Options that the value does not name have to be the paper's own. If no record has the beta and kappa that the paper
    uses for CIFAR-100 and CUB-200, other settings of these two count, because ImageNet-1k has others.
    """
    named = [record for record in records if record.method.name == value.method]
    named = [record for record in named if record.method.version >= value.since]
    strict = [record for record in named if is_papers_own(record.method, value.options)]
    return strict or [record for record in named if is_papers_own(record.method, value.options, free=TUNED)]
