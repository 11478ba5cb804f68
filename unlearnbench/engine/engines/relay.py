"""What a cluster computes on one of its nodes: a function in a fresh process, whose news go back to the driver."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass

from unlearnbench.engine.engines.engine import DiedError, Need
from unlearnbench.engine.engines.local import LocalEngine
from unlearnbench.engine.processes.fork_server import fork_server

# The process is looked after at least this often.
LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Relay:
    """Receives the news of a function on a node, and hands them on as messages.

    Attributes:
        tell: Receives the kind of a message, `say`, `begin`, `advance`, `expect` or `end`, and its values.
    """

    tell: Callable[..., None]

    def say(self, line: str) -> None:
        """Hand on a line for the user."""
        self.tell("say", line)

    def begin(self, what: str, passes: int | None) -> None:
        """Hand on that a stage begins."""
        self.tell("begin", what, passes)

    def advance(self, images: int) -> None:
        """Hand on a number of image passes."""
        self.tell("advance", images)

    def expect(self, images: int, before: int = 0) -> None:
        """Hand on how many images a stage will read from here on, and has read before."""
        self.tell("expect", images, before)

    def end(self) -> None:
        """Hand on that a stage has ended."""
        self.tell("end")


def computed(content: bytes, threads: int, tell: Callable[..., None]) -> bytes:
    """Compute a function in a process that begins with it and ends with it.

    Args:
        content: The function and its arguments, pickled.
        threads: Number of threads of the process.
        tell: Receives the messages of `Relay`.

    Returns:
        The value and the exception, one of which is None, pickled. A `DiedError` stands for a process that has died.

    Raises:
        Exception: Whatever ends the waiting, such as a handler of this process's signals; it says nothing of the
            function.
    """
    told = Relay(tell)
    try:
        function, arguments = pickle.loads(content)
    # Whoever waits for the result is told.
    except Exception as error:
        return _packed(None, error)
    with LocalEngine(fork_server(threads), [told], told.say) as engine:
        future = engine.submit(Need(), function, *arguments)
        while not future.done:
            engine.wait([future], LOOK_SECONDS)
    try:
        return _packed(future.result(), None)
    except Exception as error:
        return _packed(None, error)


def _packed(value: object, error: Exception | None) -> bytes:
    with contextlib.suppress(Exception):
        return pickle.dumps((value, error))
    return pickle.dumps((None, DiedError(f"its result cannot be sent: {error or type(value).__name__}")))
