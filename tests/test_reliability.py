"""A few trials of each subject of tests/reliability, and the table that they end in."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import pytest
from reliability.bench import Bench
from reliability.trials import Trial, run_trials, table
from support.paths import REPOSITORY


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), {"PYTHONPATH": str(REPOSITORY)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("subject", "numbers"),
    [
        ("fuzz", range(20)),
        ("corrupt", range(1, 49, 12)),
        ("machines", (0, 1, 20, 22)),
        ("kills", range(1)),
        ("races", range(1)),
        ("plugins", (2,)),
    ],
)
def test_every_trial_is_survived(subject: str, numbers: Iterable[int], bench: Bench) -> None:
    attempt = import_module(f"reliability.{subject}").attempt
    found = list(run_trials(subject, attempt, numbers, 0, bench))
    assert not [trial for trial in found if trial.fault], table(subject, found, 0)


def test_a_trial_is_the_same_whenever_it_is_repeated(tmp_path: Path) -> None:
    drawn = [
        [trial.kind for trial in run_trials("a", lambda random, *_: Trial(str(random.random()), ""), numbers, 7, bench)]
        for bench in [Bench(tmp_path)]
        for numbers in (range(5), [3])
    ]
    assert drawn[1] == drawn[0][3:4]
    assert len(set(drawn[0])) == 5


def test_the_table_says_how_to_repeat_what_failed() -> None:
    trials = [Trial("a", "", 0), Trial("b", "no such line", 1), Trial("a", "", 2)]
    assert table("corrupt", trials, 3).splitlines() == [
        "corrupt  tried  survived  failed",
        "a            2         2       0",
        "b            1         0       1",
        "all          3         2       1",
        "",
        "b: no such line",
        "  python -m tests.reliability corrupt --seed 3 --only 1",
    ]
