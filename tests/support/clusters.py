"""Clusters on this machine for tests: how long one may take, and functions that its nodes compute."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from support.commands import cli, start
from support.manifests import WD, manifest_text, write_manifest
from support.records import comparable_records
from unlearnbench.engine.engines.engine import Engine, Future, Listener
from unlearnbench.mirror import at_hand

# A cluster that starts on a busy machine takes its time.
LIMIT_SECONDS = 240.0


@contextlib.contextmanager
def alone(factory: pytest.TempPathFactory) -> Iterator[None]:
    """Wait until no other worker of the tests has a cluster, since two would want the same ports and cores."""
    place = factory.getbasetemp()
    with FileLock((place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "cluster.lock"):
        yield


def add(told: Listener, first: int, second: int) -> tuple[int, int]:
    with told.stage("adding", 2):
        told.advance(2)
        told.say(f"{first} + {second}")
    return first + second, os.getpid()


def divide(told: Listener, number: int) -> float:
    return 1 / number


def first_of(told: Listener, numbers: list[int]) -> int:
    return numbers[0]


def die_first(told: Listener, folder: Path, deaths: int) -> int:
    """Kill the process so many times, which is counted in files."""
    before = len(list(folder.iterdir()))
    if before < deaths:
        (folder / str(before)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return before


def take_long_first(told: Listener, folder: Path) -> str:
    """Take very long the first time, until there is a file `end`, and say which process does in another file."""
    if list(folder.iterdir()):
        return "again"
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + LIMIT_SECONDS
    while not (folder / "end").exists() and time.monotonic() < end:
        time.sleep(0.2)
    return "first"


def compare_with_a_local_run(folder: Path, output: str | Path, *options: str | Path) -> Path:
    """Run a small manifest with some options and on this machine, compare the records, and return the manifest."""
    manifest = write_manifest(folder, manifest_text(WD))
    local = cli("run", manifest, "-o", folder / "local", "--device", "cpu")
    done = cli("run", manifest, "-o", output, "--device", "cpu", *options)
    assert (local.code, done.code) == (0, 0), local.err + done.err
    own, found = (comparable_records(at_hand(str(place))) for place in (folder / "local", output))
    assert len(found) == 3
    for name, values in found.items():
        assert values["files"] == own[name]["files"]
        assert values["metrics"] == own[name]["metrics"]
    return manifest


def end_all(engine: Engine, futures: Collection[Future]) -> None:
    """Wait until all futures are done."""
    wait_until(lambda: all(future.done for future in futures), engine, futures)


def wait_until(moment: Callable[[], bool], engine: Engine, futures: Collection[Future]) -> None:
    """Let an engine work until a moment."""
    end = time.monotonic() + LIMIT_SECONDS
    while not moment():
        assert time.monotonic() < end
        engine.wait([future for future in futures if not future.done], 1.0)


def entry_times(output: Path) -> dict[str, int]:
    """Return when each complete entry of a store was written, by its path."""
    return {str(path.relative_to(output)): path.stat().st_mtime_ns for path in (output / "store").rglob("entry.json")}


def kill_a_run(folder: Path, *options: str | Path) -> None:
    """Begin a run of a small manifest in a process of its own, and kill that once there is a model in the store."""
    manifest = write_manifest(folder, manifest_text(WD))
    command = ("-m", "unlearnbench", "run", manifest, "-o", folder / "runs", "--device", "cpu", *options)
    process = start(*command, own_group=True)
    end = time.monotonic() + LIMIT_SECONDS
    while not entry_times(folder / "runs"):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def resume(folder: Path, *options: str | Path) -> None:
    """Run the same command again: what was finished stays as it is, and the records are those of a local run."""
    before = entry_times(folder / "runs")
    assert before
    compare_with_a_local_run(folder, folder / "runs", *options)
    after = entry_times(folder / "runs")
    assert {name: after[name] for name in before} == before
