"""What a federation trains, in a form that can be sent to other processes, and who may play its rounds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import nn

from unlearnbench.datasets.dataset import Dataset
from unlearnbench.engine.processes.reference_training import ReferenceOrder
from unlearnbench.models.batches import Batches
from unlearnbench.models.device_data import LoadedData
from unlearnbench.models.federation.federation import Federation
from unlearnbench.models.federation.shares import party_counts, sizes
from unlearnbench.models.federation.training import Averaging, FederatedTraining, accuracy_on
from unlearnbench.registry.entry_points import find

# Weights are drawn from the random state that all threads share.
_DRAWING = threading.Lock()


@dataclass(frozen=True)
class FederationOrder(ReferenceOrder):
    """A reference that a federation trains.

    Attributes:
        federation: The parties, and how they train.
        dataset: The data set, which each process opens anew.
    """

    federation: Federation
    dataset: Dataset

    def data(self, device: torch.device) -> LoadedData:
        """Return the images, which are read when they are first used."""
        return LoadedData(self.dataset, self.recipe, device, self.federation)

    def training(
        self,
        data: LoadedData,
        advance: Callable[[int], None] = lambda images: None,
        say: Callable[[str], None] = lambda line: None,
        **more: Any,
    ) -> FederatedTraining:
        """Return the training as it is before the first round.

        Args:
            data: The images, on the device to compute on.
            advance: Receives the number of images after each step.
            say: Receives a line if a checkpoint cannot be used.
            more: Further attributes of the training.
        """
        wanted = data.train.positions_of(self.classes)
        shares = [torch.from_numpy(share).to(data.device) for share in data.party_positions(self.seed)]
        judged = data.test.positions_of(self.classes)
        return FederatedTraining(
            self.network.build(self.seed, self.role).to(data.device),
            data.train,
            wanted,
            self.recipe,
            self.seed,
            self.role,
            advance,
            say,
            federation=self.federation,
            parties=[share[torch.isin(share, wanted)] for share in shares],
            accuracy=lambda network: accuracy_on(network, data.test, judged),
            **more,
        )


class FederationEngine(Protocol):
    """Plays the rounds of federations; what the function of a plugin returns for a strategy and its options."""

    @property
    def provenance(self) -> dict[str, Any]:
        """What the record says of it, as JSON values: the versions of its libraries."""

    def playing(
        self, order: FederationOrder, device: torch.device, threads: int, advance: Callable[[int], None]
    ) -> AbstractContextManager[Averaging]:
        """Start what the rounds need, and end it with the context.

        Args:
            order: What is trained.
            device: Device that the parties compute on.
            threads: Number of threads that each party computes with.
            advance: Receives numbers of images that parties have read.
        """


def named_engine(federation: Federation) -> FederationEngine | None:
    """Return the engine that a federation names, or None if it names none.

    Raises:
        PluginError: If it is not installed, or has not the strategy or its options.
    """
    if federation.engine is None:
        return None
    engine: FederationEngine = find("federations", federation.engine).load()(
        federation.strategy, **(federation.options or {})
    )
    return engine


def server_training(
    order: FederationOrder,
    train_counts: tuple[int, ...],
    average: Averaging,
    accuracy: Callable[[nn.Module], float],
    say: Callable[[str], None],
) -> FederatedTraining:
    """Return a training as the server knows it, that has no image, but how many of them each party trains on.

    Args:
        order: What is trained.
        train_counts: K numbers of training images.
        average: How a round is played.
        accuracy: How the server's model is judged after a round.
        say: Receives a line if a checkpoint cannot be used.
    """
    held = sizes(party_counts(order.federation, train_counts, order.seed), order.classes)
    with _DRAWING:
        model = order.network.build(order.seed, order.role)
    return FederatedTraining(
        model,
        cast(Batches, None),
        _positions(sum(held)),
        order.recipe,
        order.seed,
        order.role,
        say=say,
        federation=order.federation,
        parties=[_positions(images) for images in held],
        accuracy=accuracy,
        average=average,
    )


def _positions(number: int) -> torch.Tensor:
    """Return a tensor that has a length and takes no room."""
    return torch.empty(number, dtype=torch.int64, device="meta")
