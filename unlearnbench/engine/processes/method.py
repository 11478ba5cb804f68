"""One run of an unlearner as seen by the process that judges it: what it is handed, and what comes back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from unlearnbench.engine.epochs import Snapshot
from unlearnbench.engine.processes.credentials import credential_places
from unlearnbench.engine.processes.fence import Fence
from unlearnbench.engine.processes.fork_server import ForkServer, Process, Setting
from unlearnbench.engine.processes.unlearning import UNLEARNED, Assignment, check_unlearned, epoch_file, unlearn
from unlearnbench.engine.progress import Told
from unlearnbench.errors import NotApplicable, PluginError, TrainingFailedError, UnlearnBenchError
from unlearnbench.experiment.manifest import Manifest
from unlearnbench.models.build import Network
from unlearnbench.models.classifier import load_network

# How often the time of a method is looked at.
LOOK_SECONDS = 1.0
# Nobody is shown more than a method that reads a thousand images each second could read in 30 years.
MOST_IMAGES = 10**12
# A failed cell keeps so much of the end of what its method printed.
LOG_LINES, LOG_LETTERS = 20, 4000

Kept = tuple[dict[str, Tensor], dict[str, Any]]
Keep = Callable[[str, dict[str, Any], Callable[[], Kept]], Kept]


class MethodFailedError(UnlearnBenchError):
    """An unlearner did not give a model.

    Attributes:
        log: Last lines of what it printed.
    """

    def __init__(self, reason: str, log: tuple[str, ...] = ()) -> None:
        self.log = log
        super().__init__(reason)


@dataclass
class MethodRun:
    """What is known of a run of an unlearner.

    Attributes:
        report: What the process says of the run: seconds, image passes, details, and so on.
        snapshots: The weights after each saved epoch.
    """

    report: dict[str, Any] = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)


@dataclass(frozen=True)
class Limits:
    """What a cell may use.

    Attributes:
        seconds: Seconds that an unlearner may take; None sets no limit.
        memory_gib: GiB that its process may hold; None sets no limit.
    """

    seconds: float | None = None
    memory_gib: float | None = None


NO_LIMITS = Limits()


def manifest_limits(manifest: Manifest) -> Limits:
    """Return what a manifest lets a run of an unlearner use."""
    return Limits(manifest.cell_time_limit, manifest.cell_memory)


def run_method(
    server: ForkServer,
    assignment: Assignment,
    run: MethodRun,
    *,
    limits: Limits,
    closed: tuple[Path, ...],
    log: Path,
    keep: Keep,
    told: Told,
) -> nn.Module:
    """Run an unlearner in a process of its own and return the unlearned network, built here.

    Args:
        server: Server that starts the process.
        assignment: What the process is told.
        run: Filled with what is known of the run, also if it fails.
        limits: What the run may use.
        closed: Folders of which it may reach nothing but the assignment's own.
        log: File for what it prints.
        keep: Keeps tensors for later runs.
        told: Listener that follows its progress.

    Raises:
        NotApplicable: If the unlearner says so.
        MethodFailedError: If it gives no model.
    """
    log.unlink(missing_ok=True)
    memory = None if limits.memory_gib is None else int(limits.memory_gib * 2**30)
    deadline = None if limits.seconds is None else monotonic() + limits.seconds
    fence = Fence((*closed, *credential_places(os.environ)), assignment.folder)
    process = server.start(unlearn, assignment, setting=Setting(log, memory, fence=fence, trusted=False))
    talk = _Talk(process, deadline, limits, assignment, run, keep, told)
    try:
        with process:
            outcome = talk.until("done", "failed", "not_applicable")
        if "not_applicable" in outcome:
            raise NotApplicable(str(outcome["not_applicable"]))
        if "failed" in outcome:
            raise MethodFailedError(str(outcome["failed"]))
        run.report = dict(outcome["done"])
        return unlearned_network(assignment.network, assignment.folder / UNLEARNED, assignment.unlearner)
    except (MethodFailedError, PluginError, TrainingFailedError) as error:
        raise MethodFailedError(str(error), last_lines(log)) from error


class _Talk:
    """The conversation with the process of an unlearner, whose words are not trusted."""

    def __init__(
        self,
        process: Process,
        deadline: float | None,
        limits: Limits,
        assignment: Assignment,
        run: MethodRun,
        keep: Keep,
        told: Told,
    ) -> None:
        self._process = process
        self._deadline = deadline
        self._limits = limits
        self._assignment = assignment
        self._run = run
        self._keep = keep
        self._told = told

    def until(self, *wanted: str) -> dict[str, Any]:
        """Answer messages until one with a wanted key comes, and return that.

        Raises:
            MethodFailedError: If the process ends, takes too long or says what no message is.
        """
        while True:
            message = self._message()
            try:
                if any(key in message for key in wanted):
                    return message
                self._answer(message)
            except (KeyError, TypeError, ValueError, SafetensorError) as error:
                raise MethodFailedError(f"its process sent a message that cannot be read: {error}") from error

    def _message(self) -> dict[str, Any]:
        try:
            message = json.loads(self._bytes())
        except ValueError as error:
            raise MethodFailedError("its process sent a message that cannot be read") from error
        if not isinstance(message, dict):
            raise MethodFailedError("its process sent a message that cannot be read")
        return message

    def _bytes(self) -> bytes:
        while True:
            self._check_time()
            # How it ended is looked at first, so that messages which were sent before are still read.
            ended = self._process.ended
            if (message := self._process.message()) is not None:
                return message
            if ended is not None:
                limit = "" if ended.memory is None else f", {self._limits.memory_gib:g} GiB"
                raise MethodFailedError(f"{ended}{limit}")
            self._process.wait(LOOK_SECONDS)

    def _check_time(self) -> None:
        if self._deadline is not None and monotonic() > self._deadline:
            raise MethodFailedError(f"it took longer than cell_time_limit allows, {self._limits.seconds:g} s")

    def _answer(self, message: dict[str, Any]) -> None:
        if "advance" in message:
            self._told.advance(max(0, int(message["advance"])))
        elif "expect" in message:
            self._told.expect(min(MOST_IMAGES, max(0, int(message["expect"]))))
        elif "epoch" in message:
            epoch, reads = int(message["epoch"]), message["image_passes"]
            passes = {kind: int(reads[kind]) for kind in ("forget", "retain")}
            self._run.snapshots.append(Snapshot(epoch, passes, epoch_file(self._assignment.folder, epoch)))
        elif "keep" in message:
            name = str(message["keep"])
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
                raise MethodFailedError(f"task.keep: {name!r} is not a name of letters, digits, '_' and '-'")
            self._give(*self._keep(name, dict(message["settings"]), self._computed))
        else:
            raise KeyError(next(iter(message), "nothing"))

    def _computed(self) -> Kept:
        """Return what the process computes because it is not in the store yet."""
        self._send(b"false")
        facts = dict(self.until("kept")["kept"])
        return load(self._bytes()), facts

    def _give(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self._send(json.dumps(facts).encode())
        self._send(save(tensors))

    def _send(self, content: bytes) -> None:
        left = memoryview(struct.pack("!iQ", -1, len(content)) + content)
        # Listening shows whether the process has ended.
        with contextlib.suppress(OSError):
            while left and self._process.ended is None:
                self._check_time()
                left = left[self._process.write(left, LOOK_SECONDS) :]


def unlearned_network(network: Network, weights: Path, unlearner: str) -> nn.Module:
    """Return a network that is built here, with the weights that an unlearner left in a file.

    Raises:
        PluginError: If they do not fit the network, or its outputs do not stand for classes.
        TrainingFailedError: If a parameter is not finite.
    """
    model = network.unfilled()
    try:
        load_network(model, weights)
    # load_state_dict raises RuntimeError; the rest comes from a file that is not what it should be.
    except (OSError, RuntimeError, SafetensorError, KeyError, IndexError, TypeError, ValueError) as error:
        first = " ".join(str(error).split())[:300]
        raise PluginError(f"{unlearner} returned weights that do not fit the network: {first}") from error
    check_unlearned(model, unlearner, network.num_classes)
    return model


def last_lines(log: Path) -> tuple[str, ...]:
    """Return the last lines of a log; none if there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - LOG_LETTERS))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ()
    return tuple(text.splitlines()[-LOG_LINES:])
