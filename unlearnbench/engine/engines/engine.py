"""The seam between what is computed and where: an engine takes functions and gives futures."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Protocol

from unlearnbench.engine.progress import Told
from unlearnbench.errors import UnlearnBenchError


@dataclass(frozen=True)
class Need:
    """What a function needs to be computed.

    Attributes:
        cpus: Number of cores.
        gpus: Number of GPUs; a fraction shares one.
        memory_gib: GiB of memory; None leaves it open.
        devices: Number of devices, each of which takes all of the above; `together` is the sum.
        priority: Functions with a higher one are computed first.
        retries: How often it is begun again after its process has died. An exception is its result, and final.
        name: Name by which a later run finds a function that a cluster goes on with alone; "" for none.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_gib: float | None = None
    devices: int = 1
    priority: int = 0
    retries: int = 0
    name: str = ""

    @property
    def together(self) -> Need:
        """The need of all devices in one; processes that work together share no GPU."""
        if self.devices == 1:
            return self
        gpus, memory = self.devices * math.ceil(self.gpus), self.memory_gib and self.devices * self.memory_gib
        return replace(self, cpus=self.devices * self.cpus, gpus=gpus, memory_gib=memory, devices=1)


class DiedError(UnlearnBenchError):
    """The process of a function has died, and it is not begun again."""


class EngineError(UnlearnBenchError):
    """A cluster that does not answer, or cannot compute; the same command goes on from what is done."""

    exit_code = 1


class Listener(Told, Protocol):
    """What a function is given to tell of its progress.

    Attributes:
        places: Numbers by which devices are shared out on a machine, counted from 0: one, or as many as the function
            needs devices, if there are so many.
    """

    places: tuple[int, ...]


class Follower(Protocol):
    """Shows how far a function is, as a lane of the display does."""

    def begin(self, what: str, passes: int | None) -> None:
        """Show that a stage begins; `passes` is the number of images it will read, or None if unknown."""

    def advance(self, images: int) -> None:
        """Count image passes in the current stage."""

    def expect(self, images: int, before: int = 0) -> None:
        """Show that the stage will read so many images from here on, and has read so many before."""

    def end(self) -> None:
        """Show that the stage has ended; without a stage, do nothing."""


@dataclass(frozen=True)
class Shared:
    """A reference to a value that many functions take.

    Attributes:
        number: Number of the value.
    """

    number: int


@dataclass(eq=False, kw_only=True)
class Settled:
    """What has come of a function, the part of a future that is alike in all engines."""

    done: bool = False
    value: Any = None
    error: BaseException | None = None

    def result(self) -> Any:
        """Return the result, or raise what the function raised."""
        if self.error is not None:
            raise self.error
        return self.value


class Future(Protocol):
    """The result of a function that an engine computes."""

    @property
    def done(self) -> bool:
        """Whether there is a result or an exception."""

    def result(self) -> Any:
        """Return the result, once it is there.

        Raises:
            DiedError: If the process of the function has died.
            Exception: What the function raised.
        """


class Engine(Protocol):
    """Computes functions of modules; a context manager that ends what still runs."""

    @property
    def free(self) -> bool:
        """Whether a function that is submitted now begins at once."""

    def share(self, value: Any) -> Any:
        """Return a reference to a value that many functions take, so that it is sent to each process only once."""

    def submit(self, need: Need, function: Callable[..., Any], *arguments: Any) -> Future:
        """Let a function be computed.

        Args:
            need: What it needs.
            function: Function of a module, whose first argument is a `Listener`.
            arguments: Its other arguments, which can be pickled; shared values arrive as what they stand for.
        """

    def wait(self, futures: Collection[Future], seconds: float) -> None:
        """Wait until a future is done, and for so many seconds at most."""
