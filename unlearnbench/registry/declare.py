"""What a plugin declares about itself: its version, and what the conformance check and the search for options need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
Behaviour = Literal["forgets", "retains"]

VERSION = "__unlearnbench_version__"
RANGES = "__unlearnbench_ranges__"
EXEMPTIONS = "__unlearnbench_exemptions__"
CHECK_OPTIONS = "__unlearnbench_check_options__"
STAGES = "__unlearnbench_stages__"
# In the `Annotated` type of an option that came after results had been published, none of which its default changes.
ADDED_LATER = "added later"
# A feature file keeps the features of at most this many stages of a network, the input of the classifier included.
MOST_STAGES = 8


@dataclass(frozen=True)
class Range:
    """The values of a number that are worth trying.

    Attributes:
        lowest: Smallest value.
        highest: Largest value; if both are whole numbers, so are the values in between.
        log: Whether to search on a logarithmic scale.
    """

    lowest: float
    highest: float
    log: bool = False


# The search of an option is a range, or the values themselves.
SearchSpace = Range | tuple[Any, ...]


def declare(
    *,
    version: int = 1,
    exempt: Mapping[Behaviour, str] | None = None,
    check_options: Mapping[str, Any] | None = None,
    ranges: Mapping[str, SearchSpace] | None = None,
    stages: Sequence[str] | None = None,
) -> Callable[[Function], Function]:
    """Return a decorator for a plugin that declares something about itself.

    Args:
        version: Version of its results, to be raised with a change that gives other results for the same settings.
            Results stored under an older version are made anew, and a leaderboard keeps the two apart.
        exempt: Reason for each behaviour that the unlearner does not promise: `forgets` (forget accuracy
            falls) or `retains` (retain accuracy holds).
        check_options: Options with which it shows its behaviour on the small problem of the check, if its
            defaults are made for larger ones.
        ranges: Range or values of each option that `unlearnbench tune` may search.
        stages: Names of an architecture's modules whose outputs are its stages, from the image to the classifier. If it
            is left out, they are found: where the resolution or the width changes, or the blocks of a transformer.

    Raises:
        ValueError: If the version is not a whole number from 1 on, or the stages are not 1 to `MOST_STAGES` names.
    """
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"version: {version!r} is not a whole number from 1 on")
    if stages is not None and (isinstance(stages, str) or not 1 <= len(stages) <= MOST_STAGES):
        raise ValueError(f"stages: {stages!r} are not 1 to {MOST_STAGES} names of modules")

    def mark(function: Function) -> Function:
        setattr(function, VERSION, version)
        setattr(function, EXEMPTIONS, dict(exempt or {}))
        setattr(function, CHECK_OPTIONS, dict(check_options or {}))
        setattr(function, RANGES, dict(ranges or {}))
        setattr(function, STAGES, None if stages is None else tuple(stages))
        return function

    return mark
