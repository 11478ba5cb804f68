"""The training of a reference model in this process: alone, or as one of several that each take a share of every batch.

Source: accelerate (https://huggingface.co/docs/accelerate) joins the processes: it sets up torch's distributed package
and wraps the network, so that gradients are averaged over all of them.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any, Literal, Protocol

import torch
from torch import nn

from unlearnbench.datasets.dataset import Dataset
from unlearnbench.engine.processes.unlearning import peak_memory_bytes, reason_of, start_measuring
from unlearnbench.errors import TrainingFailedError, UnlearnBenchError, UnwritableError
from unlearnbench.models.batches import ALONE, Share
from unlearnbench.models.build import Network
from unlearnbench.models.classifier import save_network
from unlearnbench.models.device_data import LoadedData
from unlearnbench.models.random_state import own_random_state
from unlearnbench.models.recipe import TrainingRecipe, full_size_epochs
from unlearnbench.models.training import ReferenceTraining

INSTALL = "pip install 'unlearnbench[distributed]'"
# Progress is reported at this interval, since a message for every batch would cost more than it is worth.
TELL_SECONDS = 0.2


@dataclass(frozen=True)
class ReferenceOrder:
    """What a reference model is and how it is trained.

    Attributes:
        network: Network to train.
        role: Which reference it becomes.
        seed: Seed of whatever is drawn: its weights, batches and, in a federation, shares.
        classes: Classes that it is trained on.
        recipe: Training recipe, with its precision resolved.
    """

    network: Network
    role: Literal["original", "fdr"]
    seed: int
    classes: tuple[int, ...]
    recipe: TrainingRecipe


@dataclass(frozen=True)
class TrainingOrder(ReferenceOrder):
    """A reference that is trained on all images of its classes.

    Attributes:
        checkpoint: File that the training is resumed from and saved to from time to time.
        result: File for the trained weights.
    """

    checkpoint: Path
    result: Path


class TrainingFollower(Protocol):
    """Follows a training."""

    def say(self, line: str) -> None:
        """Receive a line for the user, such as one about a checkpoint that cannot be used."""

    def advance(self, images: int) -> None:
        """Receive the number of images after each step."""

    def expect(self, images: int, before: int = 0) -> None:
        """Receive the number of images from here on, and of those that an earlier attempt has read."""


@dataclass(frozen=True)
class Cost:
    """What a training took.

    Attributes:
        seconds: Seconds of the training, earlier attempts included.
        memory: Most bytes that a process has held on its device; None if that is unknown.
    """

    seconds: float
    memory: int | None


def train(
    order: TrainingOrder,
    data: LoadedData,
    told: TrainingFollower,
    share: Share = ALONE,
    joined: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> Cost:
    """Train a reference model in this process and save it; of several processes the first one saves it.

    Args:
        order: What it is trained on.
        data: The images, on the device to compute on.
        told: Follows the progress.
        share: What this process takes of each batch.
        joined: Returns the model in the form in which its gradients are the mean over all processes.

    Raises:
        TrainingFailedError: If the loss is not finite.
    """
    model = order.network.build(order.seed, order.role).to(data.device)
    positions = data.train.positions_of(order.classes)
    height, width = data.train.plain(positions[:1]).shape[-2:]
    passes = round(full_size_epochs(order.recipe, height, width) * len(positions))
    start_measuring(data.device)
    with own_random_state(0):
        training = ReferenceTraining(
            model,
            data.train,
            positions,
            order.recipe,
            order.seed,
            order.role,
            told.advance,
            told.say,
            share,
            joined,
            lambda images: told.expect(passes - images, images),
        )
        seconds = training.train(order.checkpoint)
    if share.number == 0:
        save_network(model, order.result)
    return Cost(seconds, peak_memory_bytes(data.device))


def missing_library() -> str:
    """Return what several processes for one training lack on this machine, and how to get it; "" if nothing."""
    return "" if find_spec("accelerate") else f"accelerate joins the processes, and is not installed\n  {INSTALL}"


def train_share(
    connection: Connection, order: TrainingOrder, dataset: Dataset, kind: str, share: Share, meeting: Path, threads: int
) -> None:
    """Be one of several processes that train a model together, and send how it goes.

    Args:
        connection: Connection to the process that waits.
        order: What the model is trained on.
        dataset: The data set, which this process opens.
        kind: `cuda`, of which each process sees the devices that are the training's and takes its own, or `cpu`.
        share: What this process takes of each batch.
        meeting: File by which the processes find each other, which does not exist before.
        threads: Number of threads to compute with.
    """
    teller = _Teller(connection, tells=share.number == 0)
    outcome: tuple[str, Any]
    try:
        device, joined = _join(kind, share, meeting)
        torch.set_num_threads(threads)
        data = LoadedData(dataset, order.recipe, device)
        outcome = ("done", train(order, data, teller, share, joined))
    except UnwritableError as error:
        outcome = ("unwritable", str(error))
    except UnlearnBenchError as error:
        outcome = ("failed", str(error))
    # The network is foreign code, and what joins the processes raises errors of many kinds.
    except Exception as error:
        traceback.print_exc()
        outcome = ("broken", reason_of(error))
    connection.send(outcome)


def _join(kind: str, share: Share, meeting: Path) -> tuple[torch.device, Callable[[nn.Module], nn.Module]]:
    """Meet the other processes; return this one's device, and what makes a model one that all train together."""
    if fault := missing_library():
        raise TrainingFailedError(fault.partition("\n")[0])
    os.environ.update(
        RANK=str(share.number),
        LOCAL_RANK=str(share.number),
        WORLD_SIZE=str(share.processes),
        LOCAL_WORLD_SIZE=str(share.processes),
    )
    if kind == "cuda":
        torch.cuda.set_device(share.number)
    # A file is free on every machine, where a port may be another's by the time that it is used.
    torch.distributed.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        init_method=meeting.absolute().as_uri(),
        rank=share.number,
        world_size=share.processes,
    )
    accelerate = import_module("accelerate")
    # A network may have parameters that no image reaches, such as those of a second head.
    unused = accelerate.DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = accelerate.Accelerator(cpu=kind == "cpu", mixed_precision="no", kwargs_handlers=[unused])
    return accelerator.device, accelerator.prepare_model


class _Teller:
    """Reports the progress of the training to the process that waits for it; one process speaks for all."""

    def __init__(self, connection: Connection, *, tells: bool) -> None:
        self._connection = connection
        self._tells = tells
        self._untold = 0
        self._spoke = monotonic()

    def say(self, line: str) -> None:
        """Send a line for the user."""
        if self._tells:
            self._connection.send(("say", line))

    def expect(self, images: int, before: int = 0) -> None:
        """Say how many images all processes will read from here on, and have read before."""
        if self._tells:
            self._connection.send(("expect", (images, before)))

    def advance(self, images: int) -> None:
        """Count images that all processes have read."""
        self._untold += images
        if self._tells and monotonic() - self._spoke > TELL_SECONDS:
            self._spoke = monotonic()
            self._connection.send(("advance", self._untold))
            self._untold = 0
