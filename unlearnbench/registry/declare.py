"""What a plugin declares about itself: its version, and what the conformance check and the search for options need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
Behaviour = Literal["forgets", "retains"]

VERSION = "__unlearnbench_version__"
RANGES = "__unlearnbench_ranges__"
EXEMPTIONS = "__unlearnbench_exemptions__"
CHECK_OPTIONS = "__unlearnbench_check_options__"


@dataclass(frozen=True)
class Range:
    """Values of a number that are worth trying.

    Attributes:
        lowest: The smallest.
        highest: The largest; whole if both are whole, and then the values between are whole too.
        log: Whether to search in powers rather than in steps.
    """

    lowest: float
    highest: float
    log: bool = False


# A range, or the values themselves.
Search = Range | tuple[Any, ...]


def declare(
    *,
    version: int = 1,
    exempt: Mapping[Behaviour, str] | None = None,
    check_options: Mapping[str, Any] | None = None,
    ranges: Mapping[str, Search] | None = None,
) -> Callable[[Function], Function]:
    """Return a decorator for a plugin that has something to say about itself.

    Args:
        version: Of its results: raise it with a change after which the same settings come to something else. What was
            stored under an older version is made anew, and a leaderboard keeps the two apart.
        exempt: For each behaviour that the method does not promise, the reason: `forgets` (forget accuracy
            falls) or `retains` (retain accuracy holds).
        check_options: Options with which it shows its behaviour on the check's small problem, where the
            defaults are made for larger ones.
        ranges: For each option that `unlearnbench tune` may search, its range or its values.

    Raises:
        ValueError: If the version is not a whole number from 1 on.
    """
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"version: {version!r} is not a whole number from 1 on")

    def mark(function: Function) -> Function:
        setattr(function, VERSION, version)
        setattr(function, EXEMPTIONS, dict(exempt or {}))
        setattr(function, CHECK_OPTIONS, dict(check_options or {}))
        setattr(function, RANGES, dict(ranges or {}))
        return function

    return mark
