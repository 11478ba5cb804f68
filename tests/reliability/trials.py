"""Trials of a subject: each is drawn from its own random stream, so that one can be repeated alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from .bench import Bench


@dataclass(frozen=True)
class Trial:
    """What was tried, and what was wrong with the answer.

    Attributes:
        kind: What was tried, in the words of the table.
        fault: What was wrong; "" if the benchmark survived.
        number: Number of the trial, by which it can be repeated.
    """

    kind: str
    fault: str
    number: int = 0


# A subject's module has one of these, which makes a trial from a random stream and the trial's number. A subject with a
# list of cases goes through it by the number.
Attempt = Callable[[Random, Bench, int], Trial]


def run_trials(subject: str, attempt: Attempt, numbers: Iterable[int], seed: int, bench: Bench) -> Iterator[Trial]:
    """Yield the trials of some numbers, one after another."""
    for number in numbers:
        made = attempt(Random(f"{subject} {seed} {number}"), bench, number)
        yield Trial(made.kind, made.fault, number)


def table(subject: str, trials: Sequence[Trial], seed: int) -> str:
    """Return the table of all trials by kind, and how to repeat each that failed."""
    kinds = sorted({trial.kind for trial in trials})
    width = max([len(kind) for kind in kinds] + [len(subject)])
    lines = [f"{subject:<{width}}  tried  survived  failed"]
    for kind in [*kinds, "all"]:
        of_kind = [trial for trial in trials if kind in (trial.kind, "all")]
        failed = sum(bool(trial.fault) for trial in of_kind)
        lines.append(f"{kind:<{width}}  {len(of_kind):>5}  {len(of_kind) - failed:>8}  {failed:>6}")
    for trial in trials:
        if trial.fault:
            lines += [
                "",
                f"{trial.kind}: {trial.fault}",
                f"  python -m tests.reliability {subject} --seed {seed} --only {trial.number}",
            ]
    return "\n".join(lines)
