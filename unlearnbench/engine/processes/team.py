"""Several processes that train one reference model together, as seen by the one that starts them and waits."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from unlearnbench.datasets.dataset import Dataset
from unlearnbench.engine.processes.fork_server import ForkServer, Process, Setting
from unlearnbench.engine.processes.reference_training import Cost, TrainingOrder, train_share
from unlearnbench.engine.progress import Told
from unlearnbench.errors import TrainingFailedError, UnwritableError
from unlearnbench.models.batches import Share

# The processes are looked after at least this often.
LOOK_SECONDS = 5.0
# One that fails leaves the others with an error of their connections; what is the cause may be told a little later.
REASON_SECONDS = 3.0


@dataclass(frozen=True)
class Team:
    """The processes of a training.

    Attributes:
        processes: Number of processes.
        devices: Devices that are free for them, of one kind. Processes on the CPU share its cores; GPUs that are
            missing here are taken from all that the machine has.
        threads: Number of threads that all of them have together.
    """

    processes: int
    devices: tuple[torch.device, ...]
    threads: int

    @property
    def kind(self) -> str:
        """Kind of the devices."""
        return self.devices[0].type

    @property
    def fault(self) -> str:
        """Why this machine has not the devices, or "" if it has."""
        if self.kind not in ("cpu", "cuda"):
            return f"{self.kind} has one device"
        found = torch.cuda.device_count() if self.kind == "cuda" else self.processes
        return f"there are {found} GPUs" if found < self.processes else ""

    @property
    def gpus(self) -> tuple[int, ...]:
        """Number of the GPU of each process, those that are free first."""
        free = [device.index or 0 for device in self.devices]
        return tuple(dict.fromkeys([*free, *range(torch.cuda.device_count())]))[: self.processes]


def train_together(server: ForkServer, order: TrainingOrder, dataset: Dataset, team: Team, told: Told) -> Cost:
    """Train a reference model in several processes, each of which computes its share of every batch.

    Args:
        server: Server that starts the processes.
        order: What the model is trained on.
        dataset: The data set, which each process opens anew.
        team: The processes.
        told: Listener that follows the progress.

    Raises:
        TrainingFailedError: If one of them dies or fails, which ends the others.
        UnwritableError: If the model or its checkpoint cannot be written.
    """
    if team.fault:
        raise TrainingFailedError(f"{team.processes} devices are to train together, and {team.fault}")
    threads = team.threads if team.kind == "cuda" else max(1, team.threads // team.processes)
    shares = [Share(number, team.processes) for number in range(team.processes)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        meeting = Path(folder) / "meeting"
        setting = Setting(variables=_seen(team.gpus) if team.kind == "cuda" else {})
        processes = [
            running.enter_context(
                server.start(train_share, order, dataset, team.kind, share, meeting, threads, setting=setting)
            )
            for share in shares
        ]
        costs = _costs(processes, told)
    memory = [cost.memory for cost in costs if cost.memory is not None]
    return Cost(costs[0].seconds, max(memory, default=None))


def _seen(gpus: Sequence[int]) -> dict[str, str]:
    """Return the variable that shows processes these GPUs alone, of those that this process sees."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(shown[gpu] if gpu < len(shown) and shown[gpu] else str(gpu) for gpu in gpus)
    }


def _costs(processes: list[Process], told: Told) -> list[Cost]:
    """Wait for all processes and return what each took.

    Raises:
        TrainingFailedError: If one of them dies or fails.
    """
    over: dict[int, Cost | None] = {}
    broken: list[str] = []
    deadline: float | None = None
    while None in over.values() or len(over) < len(processes):
        for number, process in enumerate(processes):
            if number in over:
                continue
            kind, value = _news(process, told)
            name = f"process {number + 1} of {len(processes)} that train together"
            if kind == "done":
                over[number] = value
            elif kind == "unwritable":
                raise UnwritableError(value)
            elif kind == "failed":
                raise TrainingFailedError(value)
            elif kind == "died":
                raise TrainingFailedError(f"{name}: {value}")
            elif kind == "broken":
                over[number] = None
                broken.append(f"{name}: {value}")
                deadline = deadline or monotonic() + REASON_SECONDS
        if deadline is not None and (len(over) == len(processes) or monotonic() > deadline):
            raise TrainingFailedError(broken[0])
        left = [source for number, each in enumerate(processes) if number not in over for source in each.sources]
        connection.wait(left, LOOK_SECONDS if deadline is None else deadline - monotonic())
    return [cost for cost in over.values() if cost is not None]


def _news(process: Process, told: Told) -> tuple[str, Any]:
    """Pass on what a process tells, and return what it ended with, if it has.

    That is `done`, `unwritable`, `failed`, `broken` or `died`.
    """
    # How it ended is looked at first, so that messages which it sent before are still read.
    ended = process.ended
    while (content := process.message()) is not None:
        # It runs no method's code, so that its words are those of the benchmark itself.
        kind, value = pickle.loads(content)
        if kind == "say":
            told.say(value)
        elif kind == "advance":
            told.advance(value)
        elif kind == "expect":
            told.expect(*value)
        else:
            return kind, value
    return ("died", str(ended)) if ended is not None else ("", None)
