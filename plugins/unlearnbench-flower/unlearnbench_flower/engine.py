"""The engine that plays the rounds of a federation by Flower."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from unlearnbench.errors import TrainingFailedError
from unlearnbench.machine import cores

from unlearnbench_flower.strategies import check_strategy, make_strategy

if TYPE_CHECKING:
    import torch
    from unlearnbench.engine.federated.order import FederationOrder
    from unlearnbench.models.federation.training import Averaging, FederatedTraining

    from unlearnbench_flower.network import FlowerNetwork


def flower(
    strategy: str,
    *,
    proximal_mu: float | None = None,
    server_learning_rate: float | None = None,
    server_momentum: float | None = None,
    eta: float | None = None,
    eta_l: float | None = None,
    beta_1: float | None = None,
    beta_2: float | None = None,
    tau: float | None = None,
    beta: float | None = None,
    num_malicious_nodes: int | None = None,
    num_nodes_to_select: int | None = None,
) -> FlowerEngine:
    """Play rounds by Flower: a SuperLink, SuperNodes, a process of its own for each turn of a party.

    The strategy makes the server's trainable weights of the parties' weights. Buffers, such as the statistics of batch
    normalisation, are averaged by the number of images whatever the strategy, since a server's momentum would drive a
    variance below zero.

    Args:
        strategy: Name of the strategy as Flower spells it.
        proximal_mu: FedProx: weight of half the squared distance from the round's first weights.
        server_learning_rate: FedAvgM: step size of the server.
        server_momentum: FedAvgM: momentum of the server.
        eta: FedAdagrad, FedAdam, FedYogi: step size of the server.
        eta_l: FedAdagrad, FedAdam, FedYogi: step size of the parties, as Flower notes it; the recipe decides.
        beta_1: FedAdam, FedYogi: decay of the first moment.
        beta_2: FedAdam, FedYogi: decay of the second moment.
        tau: FedAdagrad, FedAdam, FedYogi: how adaptive the server is.
        beta: FedTrimmedAvg: share that is cut off at either end.
        num_malicious_nodes: Krum, MultiKrum, Bulyan: number of parties that may send anything.
        num_nodes_to_select: MultiKrum: number of parties that are averaged.

    Returns:
        The engine, which has started nothing yet.

    Raises:
        PluginError: If Flower has no such strategy, or it refuses the options.

    Source: Flower (https://flower.ai): "Flower: A Friendly Federated Learning Research Framework" (Beutel et al.,
    2020).
    """
    given = {
        "proximal_mu": proximal_mu,
        "server_learning_rate": server_learning_rate,
        "server_momentum": server_momentum,
        "eta": eta,
        "eta_l": eta_l,
        "beta_1": beta_1,
        "beta_2": beta_2,
        "tau": tau,
        "beta": beta,
        "num_malicious_nodes": num_malicious_nodes,
        "num_nodes_to_select": num_nodes_to_select,
    }
    options = {name: value for name, value in given.items() if value is not None}
    check_strategy(strategy, options)
    make_strategy(strategy, options)
    return FlowerEngine(strategy, options)


@dataclass(frozen=True)
class FlowerEngine:
    """Plays rounds by Flower.

    Attributes:
        strategy: Name of the strategy.
        options: Its options.
    """

    strategy: str
    options: dict[str, Any]

    @property
    def provenance(self) -> dict[str, Any]:
        """Version of Flower."""
        return {"libraries": {"flwr": version("flwr")}}

    @contextmanager
    def playing(
        self, order: FederationOrder, device: torch.device, threads: int, advance: Callable[[int], None]
    ) -> Iterator[Averaging]:
        """Start Flower's processes and end them with the context; see `FederationEngine`.

        Raises:
            TrainingFailedError: If they do not start, or one of them ends.
        """
        # Planning does without torch.
        from unlearnbench.engine.processes.fork_server import fork_server

        from unlearnbench_flower.messages import Opening
        from unlearnbench_flower.network import flower_network

        nodes = min(order.federation.parties, max(1, cores() // threads))
        with flower_network(fork_server(threads), nodes) as network:
            network.ask(Opening(self.strategy, self.options, nodes, pickle.dumps(order), str(device), threads))
            yield _Rounds(network, advance)


@dataclass(frozen=True)
class _Rounds:
    """Plays rounds by processes that run already."""

    network: FlowerNetwork
    advance: Callable[[int], None]

    def __call__(self, training: FederatedTraining, drawn: Sequence[int]) -> dict[str, torch.Tensor]:
        """Play a round; see `Averaging`.

        Raises:
            TrainingFailedError: If a party fails or a process ends.
        """
        import torch
        from unlearnbench.models.federation.training import averaged

        from unlearnbench_flower.messages import Failed, Round, packed, unpacked

        state = training.model.state_dict()
        trainable = {name for name, _ in training.model.named_parameters()}
        parts = [packed({k: v for k, v in state.items() if (k in trainable) is kind}) for kind in (True, False)]
        memory = {name: value.numpy() for name, value in training.memory.items()}
        played = self.network.ask(Round(training.epoch, tuple(drawn), parts[0], parts[1], memory))
        if isinstance(played, Failed):
            raise TrainingFailedError(f"flower: round {training.epoch + 1}: {played.reason}")
        training.memory = {name: torch.from_numpy(value.copy()) for name, value in played.memory.items()}
        self.advance(training.federation.local_epochs * sum(images for _, images in played.sent))
        buffers = averaged((unpacked(content), images) for content, images in played.sent)
        return {**buffers, **{name: torch.from_numpy(value.copy()) for name, value in played.weights.items()}}
