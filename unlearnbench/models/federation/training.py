"""Federated training: rounds in which parties train copies of a network that the server averages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from unlearnbench.models.batches import Batches, in_batches
from unlearnbench.models.federation.federation import Federation
from unlearnbench.models.federation.shares import rounds_of
from unlearnbench.models.training import ReferenceTraining, recipe_optimizer

State = dict[str, Tensor]


class Averaging(Protocol):
    """Plays a round: where the parties train, and what the server makes of what they send."""

    def __call__(self, training: FederatedTraining, drawn: Sequence[int]) -> State:
        """Return the server's weights and buffers after a round.

        Args:
            training: The training before the round. What the server has to remember for the next one goes into its
                `memory`, by which a training goes on that was interrupted.
            drawn: Numbers of the parties that train in the round, at least one.
        """


def in_process(training: FederatedTraining, drawn: Sequence[int]) -> State:
    """Let the parties train one after the other in this process, and average what they send."""
    return averaged(training.sent(drawn))


@dataclass(kw_only=True)
class FederatedTraining(ReferenceTraining):
    """The training of one reference model by a federation; an epoch of it is a round.

    A party gets the server's weights, trains on its own images with an optimizer of its own, and sends its weights
    back. Rates follow the recipe's schedule over rounds times local epochs, as if all images lay in one place. A
    training that is resumed from a checkpoint ends with the same weights, bit for bit, as one that was never
    interrupted.

    Attributes:
        federation: The federation.
        parties: For each party the (M,) int64 positions of the images that it trains on.
        accuracy: Function that judges the server's model after each round; None does not judge it.
        accuracies: Its values so far, round by round.
        average: How a round is played.
        proximal: Weight of half the squared distance from the round's first weights; 0 for none.
        memory: Tensors that the server keeps from round to round, by name; averaging alone needs none.
    """

    federation: Federation
    parties: Sequence[Tensor]
    accuracy: Callable[[nn.Module], float] | None = None
    average: Averaging = in_process
    memory: State = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.accuracies: list[float] = []
        self.proximal = self.federation.proximal or 0.0
        self.rounds = rounds_of(self.federation, [len(images) for images in self.parties], self.seed)

    @property
    def epochs(self) -> int:
        """Number of rounds."""
        return self.federation.rounds

    @property
    def image_passes(self) -> int:
        """Number of images that all parties have read so far."""
        drawn = (party for parties in self.rounds[: self.epoch] for party in parties)
        return self.federation.local_epochs * sum(len(self.parties[party]) for party in drawn)

    @property
    def bytes_sent(self) -> dict[Literal["to_parties", "from_parties"], int]:
        """Bytes of weights and buffers that went to the parties, and back from them, in all rounds."""
        one = sum(value.nbytes for value in self.model.state_dict().values())
        sent = one * sum(len(drawn) for drawn in self.rounds)
        return {"to_parties": sent, "from_parties": sent}

    def _train_epoch(self) -> None:
        drawn = self.rounds[self.epoch]
        if drawn:
            self.model.load_state_dict(self.average(self, drawn))
        # No party keeps its momentum from one round to the next, and neither does the server.
        self.optimizer = recipe_optimizer(self.model, self.recipe)

    def sent(self, drawn: Sequence[int]) -> Iterator[tuple[State, int]]:
        """Yield what each party of the next round sends: weights, which the next party overwrites, and its images."""
        first = {name: value.clone() for name, value in self.model.state_dict().items()}
        for party in drawn:
            self.model.load_state_dict(first)
            self.optimizer = recipe_optimizer(self.model, self.recipe)
            for local in range(self.federation.local_epochs):
                epoch = self.epoch * self.federation.local_epochs + local
                penalty = self._pull(first) if self.proximal else None
                self._pass(self.parties[party], epoch, self.epoch, "party", party, local, penalty=penalty)
            yield self.model.state_dict(), len(self.parties[party])

    def _pull(self, first: State) -> Callable[[], Tensor]:
        """Return FedProx's term: half the squared distance from the round's first weights, times its weight."""

        def distance() -> Tensor:
            parts = [(value - first[name]).square().sum() for name, value in self.model.named_parameters()]
            return self.proximal / 2 * torch.stack(parts).sum()

        return distance

    def _epoch_ended(self) -> None:
        if self.accuracy is not None:
            self.accuracies.append(self.accuracy(self.model.eval()))

    @property
    def _progress(self) -> dict[str, Any]:
        kept = {"memory": self.memory} if self.federation.engine else {}
        return {**super()._progress, "accuracies": self.accuracies, **kept}

    @property
    def _identity(self) -> list[Any]:
        shares = [len(images) for images in self.parties]
        return [*super()._identity, self.federation.training_identity, shares]


def averaged(sent: Iterable[tuple[State, int]]) -> State:
    """Return the mean of tensors, weighted by numbers of images; counts of batches are rounded to whole ones.

    Args:
        sent: What each party sends: tensors by name, and its number of images. Only one party's is held at a time.
    """
    sums: State = {}
    like: State = {}
    total = 0
    for state, images in sent:
        for name, value in state.items():
            part = value.detach().to(torch.float64) * images
            sums[name] = sums[name] + part if name in sums else part
        like, total = state, total + images
    means = {name: value / total for name, value in sums.items()}
    return {
        name: (mean if like[name].is_floating_point() else mean.round()).to(like[name].dtype)
        for name, mean in means.items()
    }


def accuracy_on(model: nn.Module, images: Batches, positions: Tensor) -> float:
    """Return the share of the images at `positions`, (M,) int64, whose largest logit is at their label."""
    hits = torch.zeros((), dtype=torch.int64, device=positions.device)
    with torch.inference_mode():
        for batch, labels in in_batches(images, positions):
            hits += (model(batch).argmax(dim=1) == labels).sum()
    return int(hits) / len(positions)
