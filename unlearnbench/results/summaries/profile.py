"""Unlearners over all problems: a performance profile in the place of a mean rank."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unlearnbench.results.rows import Row
from unlearnbench.results.statistics import percentile_interval

# Fewer problems say nothing about others.
FEWEST_PROBLEMS = 5
DRAWS = 10_000


@dataclass(frozen=True)
class Overall:
    """An unlearner over all problems.

    Attributes:
        label: Name in the tables.
        rows: Its rows by the slug of each problem that it was run on.
        score: Area of its profile; None for fewer than `FEWEST_PROBLEMS` problems.
        interval: The 95 % interval of the score, by a bootstrap over problems.
    """

    label: str
    rows: dict[str, Row]
    score: float | None
    interval: tuple[float, float] | None

    @property
    def passed_on(self) -> int:
        """Number of problems on which it kept the retain classes and its outputs forgot."""
        return sum(passes(row) for row in self.rows.values())

    @property
    def curve(self) -> tuple[tuple[float, float], ...]:
        """Corners of its profile: t, and the share of its problems on which it passes and lies within t of FDR.

        The share stays as it is up to the next corner, and the last corner is that of t = 1.
        """
        steps = sorted({0.0, 1.0, *(distance for row in self.rows.values() if (distance := _distance(row)) < 1.0)})
        return tuple((step, statistics.fmean(_within(row, step) for row in self.rows.values())) for step in steps)


def passes(row: Row) -> bool:
    """Return whether a method kept the retain classes and its outputs forgot, as far as the data decide."""
    found = row.judgement
    return found is not None and (found.keep, found.forget) == ("passed", "passed")


def _within(row: Row, limit: float) -> bool:
    return _distance(row) <= limit


def _distance(row: Row) -> float:
    """Return the largest |position| of a row that passes; one that does not is nowhere near FDR."""
    found = row.judgement.distance if row.judgement and passes(row) else None
    return math.inf if found is None else found


def area(row: Row) -> float:
    """Return the area that a problem adds to the profile for t from 0 to 1: 1 less the distance, if it passes."""
    return max(0.0, 1.0 - _distance(row))


def overall(problems: Sequence[Sequence[Row]]) -> list[Overall]:
    """Return unlearners and controls with their default options over all problems, by score.

    A profile is the share of problems on which a method passes and has its largest |position| at most t. Its area over
    t from 0 to 1 is the score. Methods that were not run on every problem stand below those that were: the one easy
    problem must not lead the table.
    """
    found: dict[str, dict[str, Row]] = {}
    for rows in problems:
        for row in rows:
            # What was tuned had more looked at for it, on that problem alone.
            if not row.is_reference and row.division == "default":
                found.setdefault(row.label, {})[row.problem.slug] = row
    every = [_overall(label, rows) for label, rows in found.items()]
    return sorted(
        every,
        key=lambda one: (len(one.rows) < len(problems), -(one.score or 0.0), -one.passed_on, one.label),
    )


def _overall(label: str, rows: dict[str, Row]) -> Overall:
    if len(rows) < FEWEST_PROBLEMS:
        return Overall(label, rows, None, None)
    areas = np.array([area(row) for row in rows.values()])
    drawn = np.random.default_rng([4, len(areas)]).integers(len(areas), size=(DRAWS, len(areas)))
    return Overall(label, rows, float(areas.mean()), percentile_interval(areas[drawn].mean(axis=1)))
