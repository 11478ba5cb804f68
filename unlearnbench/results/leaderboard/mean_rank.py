"""Methods over all problems: mean ranks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from unlearnbench.results.ranking import Row
from unlearnbench.results.statistics import t_interval


@dataclass(frozen=True)
class Place:
    """A method on one problem.

    Attributes:
        rank: What counts for the mean: its rank, or the place behind all ranked methods.
        ranked: Whether it has a rank there.
        last: The place behind all ranked methods.
    """

    rank: int
    ranked: bool
    last: int


@dataclass(frozen=True)
class Overall:
    """A method over all problems.

    Attributes:
        label: Its name in the tables.
        places: By the problem's slug, where it took part.
        mean_rank: Over those problems.
        interval: The 95 % t interval of the mean over problems, cut at the first and the last place; None for a single
            problem.
    """

    label: str
    places: dict[str, Place]
    mean_rank: float
    interval: tuple[float, float] | None

    @property
    def ranked_on(self) -> int:
        """On how many problems it has a rank."""
        return sum(place.ranked for place in self.places.values())


def overall(problems: Sequence[Sequence[Row]]) -> list[Overall]:
    """Rank methods over all problems by their mean rank: first those that were run on every problem, then the others.

    A method without a rank on a problem, because it fails the gate or has no result, counts there as the one behind
    all that have one. Problems that it was not run on do not count, so its mean rank cannot be held against that of a
    method that was run on all: a first place on the one easy problem must not lead the table.
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
        # No mean rank lies beyond; with few problems the t interval does.
        interval = max(1.0, interval[0]), min(statistics.fmean(place.last for place in places.values()), interval[1])
    return Overall(label, places, statistics.fmean(ranks), interval)
