"""How problems differ, and titles that tell them apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from unlearnbench.results.records.record import ProblemRecord

# These settings follow from others, or repeat them in numbers.
DERIVED = frozenset({"forget_classes", "limited_counts", "num_classes", "train_images", "test_images"})
SHOWN_SETTINGS = 3
SHOWN_VALUES = 4


def settings(problem: ProblemRecord) -> dict[str, Any]:
    """Return the settings that identify a problem, by dotted key."""
    values = problem.model_dump(exclude={"id", "slug", "title", "training"})
    return values | {f"training.{key}": value for key, value in problem.training.items()}


def differences(one: ProblemRecord, other: ProblemRecord) -> list[tuple[str, Any, Any]]:
    """Return the key and both values of each setting in which two problems differ.

    A setting that an older record does not know is one that is off.
    """
    own, theirs = settings(one), settings(other)
    pairs = ((key, own.get(key), theirs.get(key)) for key in sorted(own | theirs))
    return [(key, mine, yours) for key, mine, yours in pairs if (mine or None) != (yours or None)]


def distinct_titles(problems: Iterable[ProblemRecord]) -> dict[str, str]:
    """Return a title for each problem's id; titles that would be equal state how their problems differ."""
    by_title: dict[str, list[ProblemRecord]] = {}
    for problem in problems:
        by_title.setdefault(problem.title, []).append(problem)
    return {
        problem.id: title if len(same) == 1 else f"{title}; {_peculiar(problem, same)}"
        for title, same in by_title.items()
        for problem in same
    }


def _peculiar(problem: ProblemRecord, same: Sequence[ProblemRecord]) -> str:
    """Return what distinguishes a problem from others of its title, or the start of its id if no setting does."""
    keys = sorted({key for other in same for key, _, _ in differences(problem, other)} - DERIVED)
    own = settings(problem)
    return ", ".join(f"{key} = {_shown(own.get(key))}" for key in keys[:SHOWN_SETTINGS]) or problem.id[:6]


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"{' '.join(map(str, value[:SHOWN_VALUES]))}{' ...' if len(value) > SHOWN_VALUES else ''}"
    return str(value)
