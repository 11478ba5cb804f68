"""In which settings problems differ, and titles that tell them apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from unlearnbench.record import ProblemRecord

# What follows from other settings, or says the same in numbers.
DERIVED = frozenset({"forget_classes", "limited_counts", "num_classes", "train_images", "test_images"})
SHOWN_SETTINGS = 3
SHOWN_VALUES = 4


def settings(problem: ProblemRecord) -> dict[str, Any]:
    """Return what makes a problem the one it is, by dotted key."""
    values = problem.model_dump(exclude={"id", "slug", "title", "training"})
    return values | {f"training.{key}": value for key, value in problem.training.items()}


def differences(one: ProblemRecord, other: ProblemRecord) -> list[tuple[str, Any, Any]]:
    """Return key and both values of each setting in which two problems differ."""
    own, theirs = settings(one), settings(other)
    return [(key, own.get(key), theirs.get(key)) for key in sorted(own | theirs) if own.get(key) != theirs.get(key)]


def distinct_titles(problems: Iterable[ProblemRecord]) -> dict[str, str]:
    """Return a title for each problem's id; those that would have the same one say in what they differ."""
    by_title: dict[str, list[ProblemRecord]] = {}
    for problem in problems:
        by_title.setdefault(problem.title, []).append(problem)
    return {
        problem.id: title if len(same) == 1 else f"{title}; {_peculiar(problem, same)}"
        for title, same in by_title.items()
        for problem in same
    }


def _peculiar(problem: ProblemRecord, same: Sequence[ProblemRecord]) -> str:
    """Return what tells a problem from others of its title; the start of its id where no setting does."""
    keys = sorted({key for other in same for key, _, _ in differences(problem, other)} - DERIVED)
    own = settings(problem)
    return ", ".join(f"{key} = {_shown(own.get(key))}" for key in keys[:SHOWN_SETTINGS]) or problem.id[:6]


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"{' '.join(map(str, value[:SHOWN_VALUES]))}{' ...' if len(value) > SHOWN_VALUES else ''}"
    return str(value)
