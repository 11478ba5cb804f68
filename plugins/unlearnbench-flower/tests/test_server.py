"""Rounds as the server's app plays them, with parties that train in this process, by each of Flower's strategies."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("flwr", reason="flwr is not installed; it has an environment of its own")

from flwr.app import Error, Message
from flwr.supercore.task_identity import TaskIdentity
from unlearnbench.errors import PluginError, TrainingFailedError

from unlearnbench_flower import client, server
from unlearnbench_flower.engine import _Rounds, flower
from unlearnbench_flower.messages import Failed, Opening, Round
from unlearnbench_flower.strategies import OPTIONS, make_strategy

# Parties give their signs of life in the working folder.
HERE: Any = SimpleNamespace(run_config={"meeting": "."})


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Here:
    """Flower's grid, but for its network: a message is answered in this process."""

    def __init__(self, broken: int | None = None) -> None:
        # Flower's own processes are given these numbers, which messages carry.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        self.broken = broken
        self.asked: list[int] = []

    def send_and_receive(self, messages: Iterable[Message]) -> list[Message]:
        replies = []
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"message {number}"
            party = message.content["turn"]["party"]
            self.asked.append(message.metadata.dst_node_id)
            if party == self.broken:
                replies.append(Message(Error(1, "out of memory"), reply_to=message))
            else:
                replies.append(client.train(message, HERE))
        return replies[::-1]


class Network:
    """A network whose server's app runs in this process."""

    def __init__(self, order: Any, strategy: str, options: dict[str, Any], grid: Here) -> None:
        self.opening = Opening(strategy, options, 2, pickle.dumps(order), "cpu", 1)
        self.strategy = make_strategy(strategy, options)
        self.grid = grid

    def ask(self, asked: Round) -> Any:
        try:
            return server._play(self.strategy, server._Parties(self.grid, [7, 9], self.opening, asked), asked)
        except RuntimeError as error:
            return Failed(str(error))


def played(
    order: Any, strategy: str, options: dict[str, Any] | None = None, *, anew: bool = False, grid: Here | None = None
) -> Any:
    """Return a training after all rounds; with `anew` each round has a strategy that knows of no other."""
    training = order.training(order.data(torch.device("cpu")))

    def rounds() -> _Rounds:
        return _Rounds(Network(order, strategy, options or {}, grid or Here()), read.append)

    read: list[int] = []
    one = rounds()

    def play(training: Any, drawn: Sequence[int]) -> Any:
        return (rounds() if anew else one)(training, drawn)

    training.average = play
    training.train()
    assert sum(read) == training.image_passes
    return training


def distance(first: Any, second: Any) -> float:
    pairs = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    return max(float((one.double() - other.double()).abs().max()) for one, other in pairs)


@pytest.fixture
def plain(order: Callable[..., Any]) -> Callable[..., Any]:
    def train(**settings: Any) -> Any:
        one = order(**settings)
        training = one.training(one.data(torch.device("cpu")))
        training.train()
        return training

    return train


@pytest.mark.parametrize("settings", [{}, {"split": "dirichlet", "alpha": 0.3}, {"local_epochs": 2, "rounds": 1}])
def test_fedavg_gives_the_weights_of_averaging_in_process(
    order: Callable[..., Any], plain: Callable[..., Any], settings: dict[str, Any]
) -> None:
    one = played(order(**settings, engine="flower", strategy="FedAvg"), "FedAvg")
    other = plain(**settings)
    assert distance(one, other) < 1e-6
    assert one.accuracies == pytest.approx(other.accuracies, abs=0.01)


def test_fedprox_holds_the_parties_as_ours_does(order: Callable[..., Any], plain: Callable[..., Any]) -> None:
    held = played(order(engine="flower", strategy="FedProx"), "FedProx", {"proximal_mu": 1.0})
    assert distance(held, plain(strategy="fedprox", proximal=1.0)) < 1e-6
    assert distance(held, plain()) > 1e-3


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"FedAvg", "FedProx", "Bulyan"}))
def test_each_strategy_makes_another_network_and_can_be_taken_up_again(
    order: Callable[..., Any], plain: Callable[..., Any], name: str
) -> None:
    options = {"FedAvgM": {"server_momentum": 0.9}}.get(name, {})
    one = played(order(engine="flower", strategy=name), name, options)
    assert all(value.isfinite().all() for value in one.model.state_dict().values())
    assert distance(one, plain()) > 1e-4
    again = played(order(engine="flower", strategy=name), name, options, anew=True)
    assert distance(one, again) == 0.0
    assert bool(one.memory) == (name in ("FedAvgM", "FedAdagrad", "FedAdam", "FedYogi"))


def test_a_party_that_fails_is_named(order: Callable[..., Any]) -> None:
    with pytest.raises(TrainingFailedError, match=r"^flower: round 1: party 1: out of memory$"):
        played(order(engine="flower", strategy="FedAvg"), "FedAvg", grid=Here(broken=1))


def test_supernodes_take_the_parties_in_turn(order: Callable[..., Any]) -> None:
    grid = Here()
    played(order(engine="flower", strategy="FedAvg", rounds=1), "FedAvg", grid=grid)
    assert grid.asked == [7, 9, 7]


def test_options_that_flower_refuses_are_a_message() -> None:
    with pytest.raises(PluginError) as caught:
        flower("FedTrimmedAvg", beta=0.7)
    assert str(caught.value) == "FedTrimmedAvg: `beta` must be in the range [0, 0.5)."
