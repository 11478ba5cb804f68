"""Unlearners over all problems: their mean ranks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from unlearnbench.results.ranking import Row
from unlearnbench.results.statistics import t_interval


@dataclass(frozen=True)
class Place:
    """An unlearner on one problem.

    Attributes:
        rank: Rank that counts for the mean: its own, or the place behind all ranked unlearners.
        ranked: Whether it has a rank there.
        last: The place behind all ranked unlearners.
    """

    rank: int
    ranked: bool
    last: int


@dataclass(frozen=True)
class Overall:
    """An unlearner over all problems.

    Attributes:
        label: Name in the tables.
        places: Places by the slug of each problem on which it was run.
        mean_rank: Mean of its ranks over those problems.
        interval: The 95 % t interval of the mean over problems, cut at the first and the last place; None for a single
            problem.
    """

    label: str
    places: dict[str, Place]
    mean_rank: float
    interval: tuple[float, float] | None

    @property
    def ranked_on(self) -> int:
        """Number of problems on which it has a rank."""
        return sum(place.ranked for place in self.places.values())


def overall(problems: Sequence[Sequence[Row]]) -> list[Overall]:
    """Rank unlearners over all problems by mean rank: first those that were run on every problem, then the others.

    An unlearner without a rank on a problem, because it fails the gate or has no result, counts there as the one behind
    all that have one. Problems on which it was not run do not count, so that its mean rank cannot be compared with that
    of an unlearner that was run on all: a first place on the one easy problem must not lead the table.
    """
    places: dict[str, dict[str, Place]] = {}
    for rows in problems:
        last = 1 + sum(row.rank is not None for row in rows)
        for row in rows:
            if not row.is_reference:
                place = Place(last if row.rank is None else row.rank, row.rank is not None, last)
                places.setdefault(row.label, {})[row.problem.slug] = place
    found = [_overall(label, of_label) for label, of_label in places.items()]
    return sorted(
        found,
        key=lambda method: (
            len(method.places) < len(problems),
            method.mean_rank,
            -len(method.places),
            -method.ranked_on,
            method.label,
        ),
    )


def _overall(label: str, places: dict[str, Place]) -> Overall:
    ranks = [float(place.rank) for place in places.values()]
    interval = t_interval(ranks)
    if interval is not None:
        # No mean rank lies outside these limits, but with few problems the t interval may.
        interval = max(1.0, interval[0]), min(statistics.fmean(place.last for place in places.values()), interval[1])
    return Overall(label, places, statistics.fmean(ranks), interval)
