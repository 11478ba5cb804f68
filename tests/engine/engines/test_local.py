"""The local engine computes functions in workers, and begins again what a death cut short."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from unlearnbench.engine.engines.engine import DiedError, Listener, Need
from unlearnbench.engine.engines.local import LocalEngine
from unlearnbench.engine.processes.fork_server import fork_server
from unlearnbench.engine.progress import Display

SAID: list[str] = []


def add(told: Listener, first: int, second: int) -> tuple[int, int]:
    with told.stage("adding", 2):
        told.advance(2)
        told.say(f"{first} + {second}")
    return first + second, os.getpid()


def divide(told: Listener, number: int) -> float:
    return 1 / number


def die_first(told: Listener, folder: Path, deaths: int) -> int:
    """Kill the worker so many times, which is counted in files."""
    before = len(list(folder.iterdir()))
    if before < deaths:
        (folder / str(before)).touch()
        os._exit(7)
    return before


def tell_number(told: Listener, numbers: list[int], place: int) -> int:
    return numbers[place]


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    SAID.clear()
    with (
        Display(Console(file=io.StringIO()), 1, 1, 2) as display,
        LocalEngine(fork_server(1), display.lanes, SAID.append) as engine,
    ):
        yield engine


def test_results_exceptions_and_what_is_said_come_back_from_other_processes(engine: LocalEngine) -> None:
    assert engine.free
    futures = [engine.submit(Need(), add, number, 1) for number in range(5)]
    assert not engine.free
    failing = engine.submit(Need(), divide, 0)
    for future in (*futures, failing):
        engine.wait([future], 60)
    found = [future.result() for future in futures]
    assert [value for value, _ in found] == [1, 2, 3, 4, 5]
    assert len({process for _, process in found}) == 2
    assert os.getpid() not in {process for _, process in found}
    assert sorted(SAID) == [f"{number} + 1" for number in range(5)]
    with pytest.raises(ZeroDivisionError):
        failing.result()


def test_a_death_is_retried_as_often_as_the_need_says(engine: LocalEngine, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    survives = engine.submit(Need(retries=2), die_first, tmp_path / "a", 2)
    dies = engine.submit(Need(retries=1), die_first, tmp_path / "b", 2)
    for future in (survives, dies):
        engine.wait([future], 60)
    assert survives.result() == 2
    with pytest.raises(DiedError) as caught:
        dies.result()
    assert str(caught.value) == "its process ended with exit code 7"


def test_what_waits_begins_by_priority(engine: LocalEngine, tmp_path: Path) -> None:
    order: list[str] = []
    futures = {}
    for name, priority in (("first", 0), ("second", 0), ("low", 0), ("high", 1)):
        futures[name] = engine.submit(Need(priority=priority), add, 1, 1)
    while len(order) < 4:
        engine.wait([future for name, future in futures.items() if name not in order], 60)
        order += [name for name, future in futures.items() if future.done and name not in order]
    assert order.index("high") < order.index("low") or {"high", "low"} == set(order[2:])


def test_a_shared_value_arrives_in_every_worker(engine: LocalEngine) -> None:
    numbers = engine.share([10, 20, 30])
    futures = [engine.submit(Need(), tell_number, numbers, place) for place in (0, 1, 2, 0)]
    for future in futures:
        engine.wait([future], 60)
    assert [future.result() for future in futures] == [10, 20, 30, 10]


def places_of(told: Listener) -> tuple[float, float, tuple[int, ...]]:
    begun = time.monotonic()
    time.sleep(0.3)
    return begun, time.monotonic(), told.places


@pytest.mark.slow
def test_what_needs_several_devices_holds_their_places_alone(engine: LocalEngine) -> None:
    needs = [Need(), Need(devices=2), Need(), Need(devices=8), Need()]
    futures = [engine.submit(need, places_of) for need in needs]
    assert not engine.free
    while not all(future.done for future in futures):
        engine.wait([future for future in futures if not future.done], 60)
    found = [future.result() for future in futures]
    # There are two places, so that eight devices are these two.
    assert [len(places) for _, _, places in found] == [1, 2, 1, 2, 1]
    assert {place for _, _, places in found for place in places} == {0, 1}
    for begun, ended, _ in (found[1], found[3]):
        others = [each for each in found if each[0] != begun]
        assert all(other[1] <= begun or other[0] >= ended for other in others)
    assert engine.free
