"""What an engine costs beside what it computes: many stages of nothing, and the milliseconds of each.

Ray is started on this machine, and Slurm has to be there. Stages on a cluster have a process of their own each, on this
machine's engine they share workers; the time of a process by itself stands beside them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

from rich.console import Console

from unlearnbench.engine.engines.engine import Engine, Listener, Need
from unlearnbench.engine.engines.local import LocalEngine
from unlearnbench.engine.engines.place import Profile
from unlearnbench.engine.engines.ray_cluster import RayEngine
from unlearnbench.engine.engines.slurm.cluster import SlurmEngine
from unlearnbench.engine.processes.fork_server import fork_server
from unlearnbench.engine.progress import Display

# Slurm needs so long for each stage that fewer of them are enough.
STAGES = {"local": 1000, "ray": 1000, "slurm": 20}
PROCESSES = 20
LANES = 2
# Milliseconds that a stage may cost on this machine beside its process.
MOST = 5.0


def nothing(told: Listener, content: list[int]) -> int:
    """Return how much there is in a shared value."""
    return len(content)


def stage_milliseconds(open_engine: Callable[[], AbstractContextManager[Engine]], stages: int) -> float:
    """Return the milliseconds of a stage of nothing, after as many as an engine has room for."""
    with open_engine() as engine:
        shared = engine.share(list(range(1000)))
        _compute(engine, shared, LANES)
        started = perf_counter()
        _compute(engine, shared, stages)
        return 1000 * (perf_counter() - started) / stages


def _compute(engine: Engine, shared: object, stages: int) -> None:
    """Hand out stages as a run does, as soon as there is room."""
    left, running = stages, []
    while left or running:
        while left and engine.free:
            running.append(engine.submit(Need(), nothing, shared))
            left -= 1
        engine.wait(running, 1.0)
        for future in [future for future in running if future.done]:
            assert future.result() == 1000
            running.remove(future)


def _end(connection: Connection) -> None:
    connection.send_bytes(b"x")


def process_milliseconds() -> float:
    """Return the milliseconds of a process that does nothing, started from the server that all come from."""
    server, times = fork_server(1), []
    for _ in range(PROCESSES):
        started = perf_counter()
        with server.start(_end) as process:
            process.wait(60)
        times.append(perf_counter() - started)
    return 1000 * sorted(times)[PROCESSES // 2]


@contextmanager
def local() -> Iterator[Engine]:
    """Open the engine of this machine, with a display that shows nothing."""
    with (
        Display(Console(quiet=True), 1, 1, LANES) as display,
        LocalEngine(fork_server(1), display.lanes, print) as engine,
    ):
        yield engine


@contextmanager
def slurm() -> Iterator[Engine]:
    """Open the engine on the Slurm of this machine, ten stages in a job."""
    profile = Profile(minutes=10, stages_per_job=10, jobs_at_once=LANES)
    with (
        tempfile.TemporaryDirectory() as folder,
        SlurmEngine(Path(folder), profile, [], print, threads=1, detach=False) as engine,
    ):
        yield engine


ENGINES: dict[str, Callable[[], AbstractContextManager[Engine]]] = {
    "local": local,
    "ray": partial(RayEngine, "ray", [], print, jobs=LANES),
    "slurm": slurm,
}
