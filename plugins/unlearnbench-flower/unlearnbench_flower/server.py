"""The server's app: it plays a round whenever the benchmark asks for one, with a strategy of Flower's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Client, Connection
from pathlib import Path
from time import sleep
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp

from unlearnbench_flower.messages import (
    ADDRESS,
    BUFFERS,
    GO_ON,
    IMAGES,
    KEY,
    METRICS,
    TURN,
    Failed,
    Opening,
    Played,
    Round,
    unpacked,
)
from unlearnbench_flower.strategies import make_strategy, memory_of, remember

app = ServerApp()
LOOK_SECONDS = 0.5


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Meet the benchmark, which is on this machine, and play rounds until it has no more."""
    folder = Path(str(context.run_config["meeting"]))
    with (
        contextlib.suppress(EOFError),
        Client((folder / ADDRESS).read_text(), authkey=(folder / KEY).read_bytes()) as benchmark,
    ):
        _serve(benchmark, grid)


def _serve(benchmark: Connection, grid: Grid) -> None:
    opening: Opening = benchmark.recv()
    while len(nodes := sorted(grid.get_node_ids())) < opening.nodes:
        sleep(LOOK_SECONDS)
    strategy = make_strategy(opening.strategy, opening.options)
    benchmark.send(None)
    while True:
        asked: Round = benchmark.recv()
        try:
            benchmark.send(_play(strategy, _Parties(grid, nodes, opening, asked), asked))
        # Strategies are Flower's, and what one raises is why the round failed.
        except Exception as error:
            benchmark.send(Failed(" ".join(str(error).split()) or type(error).__name__))


def _play(strategy: Any, parties: _Parties, asked: Round) -> Played:
    """Let a strategy ask the parties and make something of their replies."""
    remember(strategy, asked.memory)
    server_round = asked.index + 1
    # FedAvgM goes by the order of arrays, which has to be that of the parties.
    arrays = ArrayRecord(dict(sorted(unpacked(asked.weights).items())))
    # A strategy that keeps the server's weights takes those that it is given now.
    if hasattr(strategy, "current_arrays"):
        strategy.current_arrays = None
    asks = strategy.configure_train(server_round, arrays, ConfigRecord(), parties)
    replies = parties.send_and_receive(asks)
    made, _ = strategy.aggregate_train(server_round, replies)
    if made is None:
        raise RuntimeError(f"{type(strategy).__name__} makes nothing of {len(asked.drawn)} replies")
    sent = tuple((bytes(one.content[BUFFERS]["state"]), int(one.content[METRICS][IMAGES])) for one in replies)
    return Played({name: value.numpy() for name, value in made.items()}, sent, memory_of(strategy))


class _Parties:
    """The parties of a round, which a strategy sees as Flower's nodes and knows by their numbers.

    SuperNodes take the parties in turn, so that there may be fewer of them than parties.
    """

    def __init__(self, grid: Grid, nodes: list[int], opening: Opening, asked: Round) -> None:
        self._grid = grid
        self._nodes = nodes
        self._opening = opening
        self._asked = asked

    def get_node_ids(self) -> Iterable[int]:
        """Return a number above 0 for each party that trains in the round."""
        return [party + 1 for party in self._asked.drawn]

    def send_and_receive(self, messages: Iterable[Message]) -> list[Message]:
        """Return the parties' replies, in the parties' order.

        Raises:
            RuntimeError: If a party failed.
        """
        asks = list(self._addressed(messages))
        replies = {one.metadata.reply_to_message_id: one for one in self._grid.send_and_receive(asks)}
        found = [replies[ask.metadata.message_id] for ask in asks]
        for party, reply in zip(self._asked.drawn, found, strict=True):
            if reply.has_error():
                # Flower gives a process up that has said nothing for a minute.
                lost = f"; {GO_ON}" if reply.error.code == ErrorCode.CLIENT_APP_CRASHED else ""
                raise RuntimeError(f"party {party}: {reply.error.reason.rstrip('.')}{lost}")
        return found

    def _addressed(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Yield the message of each party, with its turn, to the SuperNode that plays it."""
        by_party = {one.metadata.dst_node_id - 1: one for one in messages}
        for place, party in enumerate(self._asked.drawn):
            turn = ConfigRecord(
                {
                    "party": party,
                    "round": self._asked.index,
                    "buffers": self._asked.buffers,
                    "order": self._opening.order,
                    "device": self._opening.device,
                    "threads": self._opening.threads,
                }
            )
            asked = by_party[party]
            yield Message(
                content=RecordDict({**asked.content, TURN: turn}),
                message_type=asked.metadata.message_type,
                dst_node_id=self._nodes[place % len(self._nodes)],
                group_id=str(self._asked.index + 1),
            )
