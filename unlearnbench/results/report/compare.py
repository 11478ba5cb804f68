"""Comparison of two runs: the difference in each metric, with its paired interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from unlearnbench.errors import InvalidFileError, UnlearnBenchError, did_you_mean
from unlearnbench.results.judgement import MASKED
from unlearnbench.results.records.problems import differences
from unlearnbench.results.records.record import Record
from unlearnbench.results.rows import Row, grouped_rows, is_share
from unlearnbench.results.statistics import bootstrap_means, percentile_interval
from unlearnbench.results.tables import LEGEND, method_name, points
from unlearnbench.terms import POSITIONS, SHORT

# Compared unless others are asked for: what the ranking rule reads.
RULE = (*SHORT.values(), MASKED, *POSITIONS.values())


@dataclass(frozen=True)
class Difference:
    """The difference in a metric between two rows over their common seeds.

    Attributes:
        metric: Label of the metric.
        first: Mean in the first run.
        second: Mean in the second run.
        interval: 95 % interval of second - first, from the paired bootstrap over seeds and test images.
        equal: Number of seeds for which the two values are exactly the same.
        share: Whether the metric is a share of images, which is shown in percent.
    """

    metric: str
    first: float
    second: float
    interval: tuple[float, float]
    equal: int
    share: bool

    @property
    def value(self) -> float:
        """Second value minus first value."""
        return self.second - self.first

    def text(self, number: float, *, sign: bool = False) -> str:
        """Return a number of this difference as tables show it."""
        return points(number, sign=sign) if self.share else f"{number:{'+' if sign else ''}.4f}"


@dataclass(frozen=True)
class Comparison:
    """One unlearner in two runs.

    Attributes:
        first: Row in the first run.
        second: Row in the second run.
        seeds: Seeds for which both have a result.
        differences: Differences by metric; empty without a common seed.
        notes: What a reader should know: seeds left out, other options, another device.
    """

    first: Row
    second: Row
    seeds: tuple[int, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the unlearner, or both names if they differ."""
        first, second = method_name(self.first), method_name(self.second)
        return first if first == second else f"{first} | {second}"


def compare(first: Sequence[Record], second: Sequence[Record], metrics: Sequence[str] = ()) -> list[Comparison]:
    """Compare the unlearners of two runs, problem by problem, by label.

    If each run has a single unlearner on a problem, these two are compared whatever their labels.

    Args:
        first: Records of one run.
        second: Records of the other run.
        metrics: Labels of metrics, or the paper's names for them; empty means the metrics that rank.

    Raises:
        InvalidFileError: If the runs have no problem in common, or no unlearner on the problems that they share.
        UnlearnBenchError: If no record has one of the metrics.
    """
    labels = {label for record in (*first, *second) for label in record.metrics}
    metrics = [SHORT.get(name, name) for name in metrics]
    for name in metrics:
        if name not in labels:
            raise UnlearnBenchError(f"--metric {name}: no metric of this label{did_you_mean(name, labels)}")
    problems = [{rows[0].problem.id: rows for rows in grouped_rows(records)} for records in (first, second)]
    common = [identity for identity in problems[0] if identity in problems[1]]
    if not common:
        raise InvalidFileError(_no_common_problem(problems[0].values(), problems[1].values()))
    found = [
        _compared(*pair, metrics or tuple(name for name in RULE if name in labels))
        for identity in common
        for pair in _pairs(problems[0][identity], problems[1][identity])
    ]
    if not found:
        first_has, second_has = (
            ", ".join(sorted({row.label for identity in common for row in side[identity]})) for side in problems
        )
        raise InvalidFileError(f"no method is in both runs\n  The first has {first_has}; the second {second_has}")
    return found


def _no_common_problem(first: Iterable[Sequence[Row]], second: Iterable[Sequence[Row]]) -> str:
    mine, others = ([rows[0].problem for rows in side] for side in (first, second))
    lines = ["the two runs have no problem in common, so that nothing can be compared"]
    lines += [f"  the first: {problem.title} ({problem.id})" for problem in mine]
    lines += [f"  the second: {problem.title} ({problem.id})" for problem in others]
    if len(mine) == len(others) == 1:
        told = (f"{key}: {own!r} and {other!r}" for key, own, other in differences(mine[0], others[0]))
        lines.append(f"  They differ in {'; '.join(told)}")
    return "\n".join(lines)


def _pairs(first: Sequence[Row], second: Sequence[Row]) -> list[tuple[Row, Row]]:
    by_label = {row.label: row for row in second}
    ordered = sorted(first, key=lambda row: (not row.is_reference, row.label != "original", row.label))
    pairs = [(row, by_label[row.label]) for row in ordered if row.label in by_label]
    singles = [[row for row in rows if not row.is_reference] for rows in (first, second)]
    if len(singles[0]) == len(singles[1]) == 1 and singles[0][0].label != singles[1][0].label:
        pairs.append((singles[0][0], singles[1][0]))
    return pairs


def _compared(first: Row, second: Row, metrics: Sequence[str]) -> Comparison:
    seeds = tuple(
        record.seed
        for record in first.done
        if all(record.seed in row.values(metric) for row in (first, second) for metric in metrics)
    )
    differences = [difference(first, second, metric, seeds) for metric in metrics] if seeds else []
    return Comparison(first, second, seeds, tuple(differences), tuple(_notes(first, second, seeds)))


def difference(first: Row, second: Row, metric: str, seeds: Sequence[int]) -> Difference:
    """Return how a metric differs between two rows over one or more seeds that both have."""
    outcomes = [row.outcomes(metric, seeds) for row in (first, second)]
    values = [[row.values(metric)[seed] for seed in seeds] for row in (first, second)]
    if outcomes[0].shape == outcomes[1].shape:
        resampled = [bootstrap_means(found) for found in outcomes]
    else:
        # One of the rows does not say which images count, so that only the seeds can be resampled.
        resampled = [bootstrap_means(np.array(found)[:, None]) for found in values]
    return Difference(
        metric,
        sum(values[0]) / len(seeds),
        sum(values[1]) / len(seeds),
        percentile_interval(resampled[1] - resampled[0]),
        sum(one == other for one, other in zip(*values, strict=True)),
        any(is_share(record.metrics[metric]) for record in first.done if record.seed in seeds),
    )


def _notes(first: Row, second: Row, seeds: Sequence[int]) -> Iterable[str]:
    for row, which in ((first, "first"), (second, "second")):
        left_out = [str(record.seed) for record in row.records if record.seed not in seeds]
        if left_out:
            yield f"seed {', '.join(left_out)} of the {which} has no result in both"
    for key in ("device", "precision"):
        places = [sorted({str(record.environment.get(key)) for record in row.done}) for row in (first, second)]
        if places[0] != places[1] and all(places):
            yield f"{key}: {', '.join(places[0])} | {', '.join(places[1])}"
    if first.method.name != second.method.name:
        return
    options = [row.method.options for row in (first, second)]
    for key in sorted(options[0].keys() | options[1].keys()):
        one, other = (found.get(key) for found in options)
        if one != other:
            yield f"option {key}: {one!r} | {other!r}"
    for key in ("version", "distribution_version", "digest"):
        one, other = (getattr(row.method, key) for row in (first, second))
        if one != other:
            yield f"method {key.replace('_', ' ')}: {one} | {other}"


def comparison_table(comparisons: Sequence[Comparison], names: tuple[str, str]) -> Table:
    """Return the comparisons on one problem as a table for a terminal; `names` head the columns of the two runs."""
    table = Table(title=comparisons[0].first.problem.title, title_justify="left", caption=_caption(comparisons))
    table.caption_justify = "left"
    for name in ("method", "metric", *names, "difference", "95 % interval", "same seeds"):
        table.add_column(name, justify="left" if name in ("method", "metric") else "right", no_wrap=True)
    for comparison in comparisons:
        for number, found in enumerate(comparison.differences):
            low, high = found.interval
            table.add_row(
                comparison.name if number == 0 else "",
                _short(found.metric),
                found.text(found.first),
                found.text(found.second),
                found.text(found.value, sign=True),
                f"{found.text(low, sign=True)} to {found.text(high, sign=True)}{'' if low <= 0 <= high else ' *'}",
                f"{found.equal} of {len(comparison.seeds)}",
            )
        if not comparison.differences:
            table.add_row(comparison.name, "no common seed with a result", "", "", "", "", "")
        table.add_section()
    return table


def _caption(comparisons: Sequence[Comparison]) -> str:
    units = {_short(found.metric): found.share for comparison in comparisons for found in comparison.differences}
    plain = ", ".join(name for name, share in units.items() if not share)
    percent = " in percent" if any(units.values()) else ""
    return (
        f"Means over common seeds{percent}{f', except {plain}' if percent and plain else ''}; difference: the second "
        "column less the first, with the 95 % interval of a paired bootstrap over seeds (with t's tails) and test "
        "images, with one seed over test images alone; * where it leaves out 0. Same seeds: how many have the very "
        "same value in both."
    )


def meanings(comparisons: Sequence[Comparison]) -> list[str]:
    """Return in plain words, a line for each, what the metrics of comparisons are, as far as tables explain them."""
    metrics = {found.metric for comparison in comparisons for found in comparison.differences}
    shown = {_short(metric) for metric in metrics}
    shown |= {"position"} if metrics & set(POSITIONS.values()) else set()
    shown |= {"kept"} if MASKED in metrics else set()
    # Whether a method kept the retain classes is read off this metric, which has no name in tables.
    names = {"kept": f"kept, by {MASKED}"}
    return [f"{names.get(term, term)}: {text.replace('*', '')}" for term, text in LEGEND if term in shown]


def _short(metric: str) -> str:
    return {label: name for name, label in SHORT.items()}.get(metric, metric)


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values; accuracies are fractions."""
    return {
        "problem": comparison.first.problem.slug,
        "first": comparison.first.label,
        "second": comparison.second.label,
        "seeds": list(comparison.seeds),
        "notes": list(comparison.notes),
        "metrics": {
            found.metric: {
                "first": found.first,
                "second": found.second,
                "difference": found.value,
                "interval": list(found.interval),
                "equal_seeds": found.equal,
            }
            for found in comparison.differences
        },
    }
