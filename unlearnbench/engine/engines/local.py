"""The local engine: workers on this machine, started when there is something to do and replaced if they die."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import pickle
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any, Self

from unlearnbench.engine.engines.engine import DiedError, Follower, Future, Need, Settled, Shared
from unlearnbench.engine.processes.fork_server import ForkServer, Process, Setting
from unlearnbench.store import Say

# Progress is reported at this interval, since a message for every batch would cost more than it is worth.
TELL_SECONDS = 0.2


@dataclass(eq=False)
class Call(Settled):
    """A function that is computed; the future of the local engine."""

    need: Need
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    deaths: int = 0


@dataclass(eq=False)
class Worker:
    """A worker as seen by the process that started it.

    Attributes:
        process: Its process.
        lane: Lane that shows its progress.
        call: What it computes; None if it is free.
        places: Places that it holds while it computes: its own, and those of workers that must not begin meanwhile.
        known: Numbers of the shared values that it was sent.
    """

    process: Process
    lane: Follower
    call: Call | None = None
    places: tuple[int, ...] = ()
    known: set[int] = field(default_factory=set)


class LocalEngine:
    """Computes functions in workers, as a context manager that ends them.

    Args:
        server: Server that starts the workers.
        lanes: Lanes that show the workers' progress, one for each worker.
        say: Receives what the functions say to the user.
    """

    def __init__(self, server: ForkServer, lanes: Sequence[Follower], say: Say) -> None:
        self._server = server
        self._lanes = lanes
        self._say = say
        self._workers: list[Worker | None] = [None] * len(lanes)
        self._waiting: list[tuple[int, int, Call]] = []
        self._order = itertools.count()
        self._shared: list[bytes] = []

    def __enter__(self) -> Self:
        """Return the engine, which has no worker yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all workers at once; their current work is then lost, but the store stays intact."""
        for worker in self._workers:
            if worker is not None:
                worker.process.end()

    @property
    def free(self) -> bool:
        """Whether a function that is submitted now begins at once."""
        wanted = sum(self._width(call) for _, _, call in self._waiting)
        return len(self._taken) + wanted < len(self._workers)

    def share(self, value: Any) -> Shared:
        """Return a reference to a value that each worker is sent only once."""
        self._shared.append(pickle.dumps(value))
        return Shared(len(self._shared) - 1)

    def submit(self, need: Need, function: Callable[..., Any], *arguments: Any) -> Call:
        """Let a function be computed; see `Engine`."""
        call = Call(need, function, arguments)
        self._queue(call)
        self._hand_out()
        return call

    def wait(self, futures: Collection[Future], seconds: float) -> None:
        """Wait until a future is done, and for so many seconds at most."""
        deadline = monotonic() + seconds
        while not any(future.done for future in futures):
            left = deadline - monotonic()
            busy = [worker for worker in self._workers if worker is not None and worker.call is not None]
            if left <= 0 or not busy:
                return
            connection.wait([source for worker in busy for source in worker.process.sources], left)
            for worker in busy:
                self._listen(worker)
            self._hand_out()

    def _queue(self, call: Call) -> None:
        heapq.heappush(self._waiting, (-call.need.priority, next(self._order), call))

    def _hand_out(self) -> None:
        """Give what waits to free workers, preferably to those that run already."""
        while self._waiting:
            taken, wanted = self._taken, self._width(self._waiting[0][2])
            free = [number for number in range(len(self._workers)) if number not in taken]
            # What needs several places waits for them, and nothing overtakes it meanwhile.
            if len(free) < wanted:
                return
            free.sort(key=lambda number: self._workers[number] is None)
            self._give(tuple(free[:wanted]), heapq.heappop(self._waiting)[2])

    @property
    def _taken(self) -> set[int]:
        """Places that are held by what is computed now."""
        return {place for worker in self._workers if worker is not None and worker.call for place in worker.places}

    def _width(self, call: Call) -> int:
        """Return how many places a call takes: as many as it needs devices, if there are so many."""
        return min(call.need.devices, len(self._workers))

    def _worker(self, number: int) -> Worker:
        """Return a worker that is free, started anew if it has ended."""
        worker = self._workers[number]
        if worker is not None and worker.process.ended:
            worker.process.end()
            worker = None
        if worker is None:
            process = self._server.start(_serve, setting=Setting(serves=True))
            worker = self._workers[number] = Worker(process, self._lanes[number])
        return worker

    def _give(self, places: tuple[int, ...], call: Call) -> None:
        worker = self._worker(places[0])
        worker.call, worker.places = call, places
        wanted = {argument.number for argument in call.arguments if isinstance(argument, Shared)}
        new = {number: self._shared[number] for number in wanted - worker.known}
        worker.known |= wanted
        # If the worker has just died, listening to it will show that.
        with contextlib.suppress(OSError):
            worker.process.connection.send((call.function, call.arguments, new, places))

    def _listen(self, worker: Worker) -> None:
        """Pass on a worker's messages; it is free once its function has ended."""
        # How it ended is looked at first, so that messages which it sent before are still read.
        ended = worker.process.ended
        while (content := worker.process.message()) is not None:
            # A worker runs no method's code, so that its words are those of the benchmark itself.
            told, *values = pickle.loads(content)
            if told == "say":
                self._say(*values)
            elif told == "begin":
                worker.lane.begin(*values)
            elif told == "advance":
                worker.lane.advance(*values)
            elif told == "expect":
                worker.lane.expect(*values)
            elif told == "end":
                worker.lane.end()
            elif worker.call is not None:
                call = self._freed(worker)
                call.value, call.error = values
                call.done = True
        if ended is None or worker.call is None:
            return
        call = self._freed(worker)
        call.deaths += 1
        if call.deaths <= call.need.retries:
            self._queue(call)
        else:
            call.error, call.done = DiedError(str(ended)), True

    @staticmethod
    def _freed(worker: Worker) -> Call:
        call = worker.call
        assert call is not None
        worker.lane.end()
        worker.call = None
        return call


def _serve(connection: Connection) -> None:
    """Compute functions as they arrive, for the whole life of a worker."""
    teller = Teller(connection)
    known: dict[int, Any] = {}
    # The loop ends when the other end is closed, because nothing is left to do then.
    with contextlib.suppress(EOFError):
        while True:
            function, arguments, new, teller.places = connection.recv()
            known.update((number, pickle.loads(content)) for number, content in new.items())
            given = [known[argument.number] if isinstance(argument, Shared) else argument for argument in arguments]
            value, error = None, None
            try:
                value = function(teller, *given)
            # Whoever waits for the result is told.
            except Exception as raised:
                error = raised
            teller.tell("result", value, error)


class Teller:
    """Reports the progress of a function to the process that waits for it.

    Args:
        connection: Connection to that process.

    Attributes:
        places: Places that the function has, as `Listener` says.
    """

    def __init__(self, connection: Connection) -> None:
        self.places = (0,)
        self._connection = connection
        self._unsaid = 0
        self._spoke = monotonic()

    def tell(self, *message: Any) -> None:
        """Send a message."""
        self._connection.send(message)

    def say(self, message: str) -> None:
        """Send a line for the user."""
        self.tell("say", message)

    @contextlib.contextmanager
    def stage(self, what: str, passes: int | None) -> Iterator[None]:
        """Report a stage while it lasts."""
        self.tell("begin", what, passes)
        try:
            yield
        finally:
            self._tell_images()
            self.tell("end")

    def advance(self, images: int) -> None:
        """Count image passes in the current stage."""
        self._unsaid += images
        if monotonic() - self._spoke > TELL_SECONDS:
            self._tell_images()

    def expect(self, images: int, before: int = 0) -> None:
        """Say how many images the current stage will read from here on, and has read before."""
        self._tell_images()
        self.tell("expect", images, before)

    def _tell_images(self) -> None:
        self._spoke = monotonic()
        images, self._unsaid = self._unsaid, 0
        self.tell("advance", images)
