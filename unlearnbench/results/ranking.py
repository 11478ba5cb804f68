"""The ranking rule: keep the retain classes, forget in the output, and then how far the features lie from FDR's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unlearnbench.results.judgement import MOST_LOSS, distances, drawn_distances, judged, positions_by_seed
from unlearnbench.results.records.record import Record
from unlearnbench.results.rows import Judgement, Row, grouped_rows, missing_values
from unlearnbench.results.statistics import IMAGE_DRAWS, simultaneous_verdicts
from unlearnbench.terms import SHORT

# The note of unlearners that kept CAne and yet have no rank, because the manifest does without FDR.
WITHOUT_FDR = 'no rank without FDR (fdr = "none" in [references])'
CONTROL = "control: a row that must not win, so it has no rank"
NOT_RUN_HERE = "method not run here: what it read is not known, so it has no rank"
PAPER = "paper"

Key = Callable[[Row], float]


def _distance(row: Row) -> float:
    return _or_last(row.judgement.distance if row.judgement else None)


def _loss(row: Row) -> float:
    return _or_last(row.judgement.loss[0] if row.judgement and row.judgement.loss else None)


def _reads(row: Row) -> float:
    if not row.run_here:
        return float("inf")
    return statistics.fmean(sum(record.image_passes.values()) for record in row.done)


def _or_last(value: float | None) -> float:
    return float("inf") if value is None else value


# These are the orders that `--rank-by` offers; the ranks themselves are those of the rule in each.
ORDERS: dict[str, Key] = {
    PAPER: _distance,
    "prototype-gap": lambda row: abs(row.judgement.positions["prototype"]) if row.judgement else float("inf"),
    "retain-accuracy": _loss,
    "image-passes": _reads,
}
ORDER_TEXTS = {
    PAPER: "the largest |position| over the three views",
    "prototype-gap": "|position| of the nearest prototype",
    "retain-accuracy": "what was lost of the retain classes",
    "image-passes": "image passes",
}


def rows_by_problem(records: Iterable[Record], order: str = PAPER) -> list[list[Row]]:
    """Group records into one list of rows for each problem, ranked, and listed by an entry of `ORDERS`."""
    return [rank(rows, order) for rows in grouped_rows(records)]


def reference_row(rows: Iterable[Row], name: str) -> Row | None:
    """Return the row of `original` or `fdr` if it has a result."""
    return next((row for row in rows if row.is_reference and row.method.name == name and row.done), None)


def rank(rows: Sequence[Row], order: str = PAPER) -> list[Row]:
    """Return the rows of one problem: references, ranked unlearners, controls, provisional rows, and those without.

    1. Keep: the loss is Original's masked retain accuracy less the method's, paired by seed. It is passed if the upper
       bound of its 95 % interval is at most `MOST_LOSS`, failed if the lower one is above; who fails has no rank.
    2. Forget in the output: FAe, in the same three words. Who fails stands in a second band, behind all others.
    3. Forget in the features: within a band the mean over seeds of the largest |position| over three views.

    A rank is a range: 1 + the number of methods that are better, up to the number of methods less those that are worse,
    by simultaneous intervals of paired differences. Divisions are ranked apart. Controls, and methods with fewer than
    three seeds or without one of the metrics, have no rank.

    Source: the judgement of ERwP (ECCV 2022) with intervals, and two more views beside its prototypes; what a method
    may lose is the paper's CUB-200 claim.
    """
    references = sorted((row for row in rows if row.is_reference), key=lambda row: row.method.name != "original")
    original, fdr = reference_row(rows, "original"), reference_row(rows, "fdr")
    found = [_with_note(row, original, fdr) for row in rows if not row.is_reference]
    ranked: list[Row] = []
    if original is not None and fdr is not None:
        for division in sorted({row.division for row in found}):
            ranked += _ranked([row for row in found if not row.note and row.division == division], original, fdr)
    ranked.sort(key=lambda row: (row.division, _band(row), ORDERS[order](row), row.label))
    ranked = [replace(row, pareto=_is_best_compromise(row, ranked, fdr)) for row in ranked]
    rest = sorted((row for row in found if row.note), key=_place_of_unranked)
    return [*references, *ranked, *rest]


def _place_of_unranked(row: Row) -> tuple[bool, bool, float, str]:
    return row.role != "control", not is_provisional(row), -(row.mean(SHORT["CAne"]) or -1.0), row.label


def is_provisional(row: Row) -> bool:
    """Return whether a row has no rank only because seeds or metrics are missing."""
    return bool(row.judgement and row.judgement.provisional)


def _band(row: Row) -> int:
    return 2 if row.judgement and row.judgement.forget == "failed" else 1


def _with_note(row: Row, original: Row | None, fdr: Row | None) -> Row:
    """Return a row with its judgement, and with the reason if it has no rank."""
    original, fdr = (None if one is None else row.yardstick(one) for one in (original, fdr))
    note = _without_result(row, original, fdr)
    if note:
        return replace(row, rank=None, note=note)
    if original is None or fdr is None:
        note = CONTROL if row.role == "control" else WITHOUT_FDR if row.run_here else NOT_RUN_HERE
        return replace(row, rank=None, note=note)
    found = judged(row, original, fdr)
    return replace(row, rank=None, judgement=found, note=_note(row, found))


def _note(row: Row, found: Judgement) -> str:
    if row.role == "control":
        return CONTROL
    if not row.run_here:
        return NOT_RUN_HERE
    if found.provisional:
        return f"provisional: {found.provisional}"
    if found.keep == "failed" and found.loss:
        mean, low, high = (100 * part for part in found.loss)
        return (
            f"it lost {mean:.2f} points of the retain classes ({low:.2f} to {high:.2f}), more than {100 * MOST_LOSS:g}"
        )
    return ""


def _ranked(rows: Sequence[Row], original: Row, fdr: Row) -> list[Row]:
    """Return the rows of one division with their ranges of ranks."""
    if not rows:
        return []
    bands = np.array([_band(row) for row in rows])
    verdicts = _verdicts(rows, original, fdr)
    better, worse = verdicts == 1, verdicts == -1
    # The second band stands behind the first, whatever its features are.
    apart = bands[:, None] != bands[None, :]
    better[apart], worse[apart] = (bands[:, None] > bands)[apart], (bands[:, None] < bands)[apart]
    return [
        replace(row, rank=(1 + int(better[number].sum()), len(rows) - int(worse[number].sum())))
        for number, row in enumerate(rows)
    ]


def _verdicts(rows: Sequence[Row], original: Row, fdr: Row) -> NDArray[np.int64]:
    """Return (R, R): 1 where the first row is farther from FDR than the second, -1 where it is nearer, else 0."""
    pairs = [(row.yardstick(original), row.yardstick(fdr)) for row in rows]
    by_row = [distances(positions_by_seed(row, *pair)) for row, pair in zip(rows, pairs, strict=True)]
    seeds = sorted({seed for found in by_row for seed in found})
    values = np.full((len(rows), len(seeds)), np.nan)
    draws = np.full((IMAGE_DRAWS, len(rows), len(seeds)), np.nan)
    for number, (row, pair, found) in enumerate(zip(rows, pairs, by_row, strict=True)):
        held = [seeds.index(seed) for seed in found]
        values[number, held] = list(found.values())
        draws[:, number, held] = drawn_distances(row, *pair, list(found))
    return simultaneous_verdicts(values, draws)


@dataclass(frozen=True)
class _Numbers:
    """FAe, the distance of FPAe from FDR's, and the loss of CAne; for each of them less is better."""

    values: tuple[float, float, float]

    def beats(self, other: _Numbers) -> bool:
        """Return whether no number is worse and one is better."""
        pairs = zip(self.values, other.values, strict=True)
        return self.values != other.values and all(mine <= his for mine, his in pairs)


def _numbers(row: Row, fdr: Row | None) -> _Numbers:
    gaps = row.gaps(fdr).values()
    gap = abs(statistics.fmean(gaps)) if gaps else float("inf")
    means = (row.mean(SHORT["FAe"]) or 0.0, gap, 1 - (row.mean(SHORT["CAne"]) or 0.0))
    return _Numbers((round(means[0], 12), round(means[1], 12), round(means[2], 12)))


def _is_best_compromise(row: Row, rows: Iterable[Row], fdr: Row | None) -> bool:
    """Return whether a row is in the Pareto set of FAe, CAne and the distance of FPAe from FDR's, by means."""
    own = _numbers(row, fdr)
    return not any(_numbers(other, fdr).beats(own) for other in rows)


def _without_result(row: Row, original: Row | None, fdr: Row | None) -> str:
    """Return why there is nothing to judge of a row; "" if there is."""
    states = {record.status for record in row.records}
    if states != {"done"}:
        other = [record for record in row.records if record.status != "done"]
        status = "failed" if "failed" in states else "not applicable"
        return f"{status} with seed {', '.join(str(record.seed) for record in other)}: {other[0].reason}"
    has_fdr = any(record.fdr != "none" for record in row.records)
    for metric in (SHORT["CAne"], SHORT["FAe"], SHORT["FPAe"]):
        missing = missing_values(row, metric)
        if missing:
            return missing
        for reference, name in ((original, "Original"), (fdr, "FDR")) if has_fdr else ((original, "Original"),):
            if reference is None or not row.values(metric).keys() <= {record.seed for record in reference.done}:
                return f"{name} is missing with these seeds"
            if not row.values(metric).keys() <= reference.values(metric).keys():
                return f"{name}'s {missing_values(reference, metric)}"
    return ""
