"""How good a setting of a method is: the ranking rule as one number, lower is better."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from unlearnbench.results.judgement import MASKED, MOST_FAE, MOST_FAE_SHARE, MOST_LOSS
from unlearnbench.results.ranking import rows_by_problem
from unlearnbench.results.records.record import Record
from unlearnbench.results.rows import Row
from unlearnbench.terms import HEADLINE, POSITIONS, SHORT, VIEW_METRICS

# What limited images alone say of the features: nearest prototypes and nearest neighbours, both among limited images.
LIMITED_VIEWS = ("forget_prototype_accuracy prototypes=limited", "forget_neighbour_accuracy")
ORACLE_METRICS = frozenset({*HEADLINE, MASKED, *POSITIONS.values(), *VIEW_METRICS.values()})
LIMITED_METRICS = frozenset({*HEADLINE, MASKED, *LIMITED_VIEWS})

# This is worse than any method that ran, which scores at most 3.
FAILED = 10.0
BANDS = (
    f"score: {FAILED:g} is a failed trial; 2 and the loss where more than {100 * MOST_LOSS:g} points of the retain "
    "classes were lost; 1 and FAe where the outputs did not forget; else "
)
ORACLE_SCORE = BANDS + "d / (1 + d) for the distance d of the farthest view from FDR; lower is better"
LIMITED_SCORE = BANDS + (
    "the mean of the share of these points that was lost and the share of Original's knowledge that the farther of two "
    "views still finds, all on held-out limited images; lower is better"
)


def oracle_score(records: Iterable[Record], label: str) -> float:
    """Return the score of a method that is judged by FDR; several problems give the mean."""
    found = [_by_fdr({row.method.label: row for row in rows}, label) for rows in rows_by_problem(records)]
    return statistics.fmean(found)


def _by_fdr(rows: Mapping[str, Row], label: str) -> float:
    row, original = rows[label], rows["original"]
    found, before = row.judgement, original.mean(SHORT["FAe"])
    forget = row.mean(SHORT["FAe"])
    if found is None or found.loss is None or found.distance is None or forget is None or before is None:
        return FAILED
    return _score(found.loss[0], forget, before, found.distance / (1 + found.distance))


def limited_score(problems: Iterable[Sequence[Record]], label: str) -> float:
    """Return the score of a method that is judged by limited images alone, without FDR.

    Without FDR nobody knows how far the features should go. What more they forget is therefore weighed against what
    it costs: a damage that FDR would show begins where the retain classes begin to suffer.

    Args:
        problems: Records of Original and of the method for each problem.
        label: Label of the method.
    """
    return statistics.fmean(_by_limited(records, label) for records in problems)


def _by_limited(records: Sequence[Record], label: str) -> float:
    judged = {record.seed: record for record in records if record.method.label == label}
    originals = {record.seed: record for record in records if record.method.name == "original"}
    means: dict[str, tuple[float, float]] = {}
    for metric in (SHORT["FAe"], MASKED, *LIMITED_VIEWS):
        own = [record.value(metric) for record in judged.values()]
        before = [originals[seed].value(metric) for seed in judged if seed in originals]
        known = [[value for value in values if value is not None] for values in (own, before)]
        if not judged or min(map(len, known)) < len(judged):
            return FAILED
        means[metric] = statistics.fmean(known[0]), statistics.fmean(known[1])
    loss = means[MASKED][1] - means[MASKED][0]
    left = max(own / before if before else 1.0 for own, before in (means[view] for view in LIMITED_VIEWS))
    return _score(loss, *means[SHORT["FAe"]], (max(0.0, loss) / MOST_LOSS + min(1.0, left)) / 2)


def _score(loss: float, forget: float, before: float, rest: float) -> float:
    """Return the number of a method: its band, and what orders within the band.

    Args:
        loss: What it lost of the retain classes.
        forget: Its FAe.
        before: Original's FAe.
        rest: How far its features are, in [0, 1].
    """
    # Means of seeds are rounded.
    if loss > MOST_LOSS + 1e-9:
        return 2 + loss
    if forget > max(MOST_FAE, MOST_FAE_SHARE * before) + 1e-9:
        return 1 + forget
    return rest
