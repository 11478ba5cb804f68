"""A benchmark: two things run in turn, several times, and the median of their ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

REPEATS = 5


@dataclass(frozen=True)
class Ratio:
    """The result of a benchmark.

    Attributes:
        what: Name of the two things.
        ours: Median images per second of the first.
        theirs: Median images per second of the second.
        ratios: Speed of the first over that of the second, for each repeat.
        target: Ratio that the median should reach.
    """

    what: str
    ours: float
    theirs: float
    ratios: tuple[float, ...]
    target: float

    @property
    def median(self) -> float:
        """Median ratio."""
        return statistics.median(self.ratios)


def measure(what: str, target: float, images: int, ours: Callable[[], object], theirs: Callable[[], object]) -> Ratio:
    """Return the ratio of the speeds of two functions that each process `images` images, after one warm-up."""
    ours(), theirs()
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(REPEATS)]
    return Ratio(
        what,
        images / statistics.median(first for first, _ in pairs),
        images / statistics.median(second for _, second in pairs),
        tuple(second / first for first, second in pairs),
        target,
    )


def _seconds(function: Callable[[], object]) -> float:
    started = perf_counter()
    function()
    return perf_counter() - started
