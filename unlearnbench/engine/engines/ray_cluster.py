"""The engine on Ray: each function is a task, on whichever node has room for it."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, Self

from unlearnbench.engine.engines.engine import DiedError, EngineError, Follower, Future, Need, Settled, Shared
from unlearnbench.engine.engines.ray_connection import ANSWER_SECONDS, answered, asked, connect, lost
from unlearnbench.engine.engines.relay import computed
from unlearnbench.store import Say

# A cluster that grows by itself may first have to get a machine.
START_SECONDS = 900.0
RESOURCES_SECONDS = 10.0
END_SECONDS = 5.0


@dataclass(eq=False)
class Call(Settled):
    """A function that is computed; the future of this engine."""

    need: Need
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    number: int = 0
    reference: Any = None
    since: float = field(default_factory=monotonic)
    begun: bool = False
    deaths: int = 0


class Board:
    """Collects the messages of all tasks until the driver takes them; an actor of Ray's."""

    def __init__(self) -> None:
        self._messages: list[tuple[Any, ...]] = []

    def put(self, *message: Any) -> None:
        """Keep a message."""
        self._messages.append(message)

    def take(self) -> list[tuple[Any, ...]]:
        """Return the messages since the last call."""
        taken, self._messages = self._messages, []
        return taken


def _task(number: int, threads: int, board: Any, content: bytes, *shared: bytes) -> bytes:
    """Compute a function on a node, in a fresh process; see `computed`."""
    board.put.remote(number, "begun", socket.gethostname(), os.getpid())
    function, arguments = pickle.loads(content)
    given = [pickle.loads(shared[each.number]) if isinstance(each, Shared) else each for each in arguments]
    return computed(
        pickle.dumps((function, given)), threads, lambda *message: board.put.remote(number, *message) and None
    )


class RayEngine:
    """Computes functions on a Ray cluster, as a context manager that cancels what still runs.

    Args:
        address: Address of the cluster, as in `connect`.
        lanes: Lanes that show the progress; of more functions than lanes the first are shown.
        say: Receives what the functions say to the user.
        threads: Number of threads of each function.
        jobs: Number of functions at a time; None takes as many as the cluster has room for.

    Attributes:
        workers: Process of Ray's that each function was begun in, in this order, on whichever node.
    """

    def __init__(
        self, address: str, lanes: Sequence[Follower], say: Say, *, threads: int = 1, jobs: int | None = None
    ) -> None:
        self._address = address
        self._say = say
        self._threads = threads
        self._jobs = jobs
        self._lanes: dict[int, Follower] = {}
        self._free_lanes = list(reversed(lanes))
        self._calls: dict[int, Call] = {}
        self._submitted = 0
        self._shared: list[Any] = []
        self._room: tuple[float, dict[str, float]] = (0.0, {})
        self._last_need = Need()
        self._heard = monotonic()
        self._greeted = False
        self.workers: list[int] = []

    def __enter__(self) -> Self:
        """Connect to the cluster."""
        self._ray = connect(self._address, self._say)
        # A worker of Ray's serves many tasks, each in a process of its own; a GPU is held by that process alone.
        self._task = self._ray.remote(max_calls=0)(_task)
        self._board = asked(self._ray.remote(num_cpus=0, max_restarts=-1)(Board).remote)
        self._heard = monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel all tasks; their current work is then lost, but the store stays intact."""
        for call in self._calls.values():
            with contextlib.suppress(Exception):
                answered(partial(self._ray.cancel, call.reference, force=True), END_SECONDS)
        with contextlib.suppress(Exception):
            answered(partial(self._ray.kill, self._board), END_SECONDS)

    @property
    def free(self) -> bool:
        """Whether a function that is submitted now begins at once."""
        return len(self._calls) < (self._jobs or self._slots(self._last_need))

    def share(self, value: Any) -> Shared:
        """Return a reference to a value that each node is sent only once."""
        content = pickle.dumps(value)
        self._shared.append(asked(partial(self._ray.put, content)))
        return Shared(len(self._shared) - 1)

    def submit(self, need: Need, function: Callable[..., Any], *arguments: Any) -> Call:
        """Let a function be computed; see `Engine`."""
        self._last_need = need
        call = Call(need, function, arguments)
        self._begin(call)
        return call

    def wait(self, futures: Collection[Future], seconds: float) -> None:
        """Wait until a future is done, and for so many seconds at most.

        Raises:
            EngineError: If the cluster does not answer any more, or has had no room for any function for long.
        """
        deadline = monotonic() + seconds
        while not any(future.done for future in futures):
            left = deadline - monotonic()
            if left <= 0 or not self._calls:
                return
            waiting = {call.reference: call for call in self._calls.values()}
            seconds = min(left, ANSWER_SECONDS / 4)
            ready, _ = asked(partial(self._ray.wait, list(waiting), num_returns=1, timeout=seconds))
            self._hear()
            self._ask_head()
            for reference in ready:
                self._end(waiting[reference])
            self._check_room()

    def _slots(self, need: Need) -> int:
        """Return how many functions the cluster has room for; at least one, which shows what is missing."""
        self._ask_head()
        return room_for(need, self._room[1])

    def _ask_head(self) -> None:
        """Ask the head now and then what the cluster has, by which it is known that the head is there.

        Nodes whose head is gone compute and answer for minutes, but they are given nothing new.
        """
        silent = monotonic() - self._room[0]
        if silent < RESOURCES_SECONDS:
            return
        try:
            self._room = (monotonic(), answered(self._ray.cluster_resources))
        # Ray raises whatever its part that is missing makes it raise.
        except Exception as error:
            if isinstance(error, TimeoutError) or silent > ANSWER_SECONDS:
                raise lost(TimeoutError()) from error

    def _begin(self, call: Call) -> None:
        """Submit a call, with a new number, so that news of an earlier attempt are not taken for its own."""
        self._submitted += 1
        call.number, call.since, call.begun = self._submitted, monotonic(), False
        need = call.need.together
        options: dict[str, Any] = {"num_cpus": need.cpus, "num_gpus": need.gpus, "max_retries": 0}
        options["scheduling_strategy"] = "SPREAD"
        if need.memory_gib:
            options["memory"] = int(need.memory_gib * 2**30)
        used = sorted({each.number for each in call.arguments if isinstance(each, Shared)})
        places = {number: Shared(place) for place, number in enumerate(used)}
        sent = [places[each.number] if isinstance(each, Shared) else each for each in call.arguments]
        content = pickle.dumps((call.function, sent))
        task = partial(self._task.options(**options).remote, call.number, self._threads, self._board, content)
        call.reference = asked(partial(task, *(self._shared[number] for number in used)))
        self._calls[call.number] = call

    def _hear(self) -> None:
        """Show the news that have arrived, by which it is known that the cluster answers."""
        try:
            messages = answered(lambda: self._ray.get(self._board.take.remote(), timeout=ANSWER_SECONDS / 4))
        # Ray raises whatever its part that is missing makes it raise.
        except Exception as error:
            # The board has a worker of its own, which a busy cluster takes its time to start.
            limit = ANSWER_SECONDS if self._greeted else START_SECONDS
            if monotonic() - self._heard > limit:
                raise lost(TimeoutError(), limit) from error
            return
        self._heard, self._greeted = monotonic(), True
        for number, kind, *values in messages:
            if kind == "say":
                self._say(*values)
            elif number not in self._calls:
                continue
            elif kind == "begun":
                self._calls[number].begun = True
                self.workers.append(values[1])
                if self._free_lanes:
                    self._lanes[number] = self._free_lanes.pop()
            elif lane := self._lanes.get(number):
                getattr(lane, kind)(*values)

    def _end(self, call: Call) -> None:
        """Take what a task ended with; a death leads to another attempt, as often as the call's need says."""
        del self._calls[call.number]
        if lane := self._lanes.pop(call.number, None):
            lane.end()
            self._free_lanes.append(lane)
        exceptions = self._ray.exceptions
        try:
            value, error = pickle.loads(answered(partial(self._ray.get, call.reference)))
        except exceptions.RayTaskError as raised:
            cause = raised.cause if getattr(raised, "cause", None) else raised
            text = next(reversed(str(cause).strip().splitlines()), type(cause).__name__)
            value, error = (
                None,
                EngineError(
                    f"ray: a node cannot compute: {text}\n  unlearnbench doctor --on {self._address} tries every node"
                ),
            )
        except exceptions.RayError as raised:
            value, error = None, DiedError(_death(raised))
        except (TimeoutError, ConnectionError) as raised:
            raise lost(raised) from raised
        if isinstance(error, DiedError) and call.deaths < call.need.retries:
            call.deaths += 1
            self._say(f"ray: {error}; begun again, {call.deaths} of {call.need.retries}")
            self._begin(call)
            return
        call.value, call.error, call.done = value, error, True

    def _check_room(self) -> None:
        """Say what is waited for if the cluster has taken nothing for long."""
        waiting = [call for call in self._calls.values() if not call.begun]
        if len(waiting) < len(self._calls) or not waiting:
            return
        if min(monotonic() - call.since for call in waiting) > START_SECONDS:
            need = waiting[0].need.together
            found = {name: self._room[1].get(name, 0) for name in ("CPU", "GPU")}
            raise EngineError(
                f"ray: no node has taken a stage for {START_SECONDS:.0f} s, which needs {need.cpus:g} CPUs and "
                f"{need.gpus:g} GPUs; the cluster has {found['CPU']:g} CPUs and {found['GPU']:g} GPUs\n"
                "  Add a node that has them, or ask for less with --device and --jobs"
            )


def room_for(need: Need, found: Mapping[str, float]) -> int:
    """Return how many functions a cluster's resources have room for; at least one, which shows what is missing."""
    need = need.together
    by_kind = [found.get("CPU", 0) / need.cpus] if need.cpus else []
    if need.gpus:
        by_kind.append(found.get("GPU", 0) / need.gpus)
    if need.memory_gib:
        by_kind.append(found.get("memory", 0) / (need.memory_gib * 2**30))
    return max(1, int(min(by_kind, default=1)))


def _death(error: Exception) -> str:
    """Return in one line how a worker or a node was lost."""
    what = {
        "NodeDiedError": "its node was lost",
        "WorkerCrashedError": "its worker died",
        "OutOfMemoryError": "its worker was ended because the node's memory ran out",
        "LocalRayletDiedError": "its node was lost",
    }
    return what.get(type(error).__name__, f"its worker was lost ({type(error).__name__})")
