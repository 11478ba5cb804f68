"""Federations whose parties train in workers of their own, so that the parties of a round train at the same time.

The server of a federation is a thread of the process that hands out stages. It goes through the rounds, asks for the
turns of the parties, averages what they send, and leaves a checkpoint, from which the model is made.
"""

from __future__ import annotations

import hashlib
import pickle
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unlearnbench.engine.engines.engine import Engine, Future, Need
from unlearnbench.engine.federated.order import FederationOrder, server_training
from unlearnbench.engine.parties.turns import judge_round, packed, play_turn, unpacked
from unlearnbench.engine.recording import PART, stage_names
from unlearnbench.engine.runner import Runner
from unlearnbench.engine.schedule import Task
from unlearnbench.errors import TrainingFailedError
from unlearnbench.models.federation.training import FederatedTraining, State, averaged
from unlearnbench.terms import REFERENCES

# A server that has its answers asks for the next turns within moments.
THINKING_SECONDS = 0.02


class _StoppedError(Exception):
    """The run ends before the federation does."""


@dataclass
class _Server:
    """The server of one federation, as the process that hands out stages sees it.

    Attributes:
        task: The task that makes the model which it trains.
        thread: Its thread.
        asked: Calls that it waits for: functions and arguments.
        answers: Their results, in their order, or an exception.
        futures: Calls that are computed now.
        error: What ended it, if it failed.
    """

    task: Task
    thread: threading.Thread | None = None
    asked: queue.SimpleQueue[list[tuple[Any, ...]]] = field(default_factory=queue.SimpleQueue)
    answers: queue.SimpleQueue[list[Any] | BaseException] = field(default_factory=queue.SimpleQueue)
    futures: list[Future] = field(default_factory=list)
    error: BaseException | None = None

    def ask(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        """Wait in the server's own thread until calls are computed, and return their results."""
        self.asked.put(calls)
        answers = self.answers.get()
        if isinstance(answers, BaseException):
            raise answers
        return answers


class PartiesApart:
    """The servers of a run's federations; a context manager that stops them.

    Args:
        runner: What knows the plan and the store.
        post: Shared value with which workers know it too.
        need: What the turn of a party needs.
        engine: Engine that computes the turns.
        most: Number of federations that train at a time; 0 leaves each of them to one worker.
    """

    def __init__(self, runner: Runner, post: Any, need: Need, engine: Engine, most: int) -> None:
        self._runner = runner
        self._post = post
        self._need = need
        self._engine = engine
        self._most = most
        self._servers: list[_Server] = []

    def __enter__(self) -> PartiesApart:
        """Return this, without any server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the servers; each has kept what it last saved."""
        for server in self._servers:
            server.answers.put(_StoppedError())
        for server in self._servers:
            if server.thread is not None:
                server.thread.join()

    @property
    def full(self) -> bool:
        """Whether as many federations train as may."""
        return 0 < self._most <= len(self._servers)

    @property
    def futures(self) -> list[Future]:
        """What is computed for the servers now, without what is done and waits for the rest of its round."""
        return [future for server in self._servers for future in server.futures if not future.done]

    @property
    def thinking(self) -> bool:
        """Whether a server will soon ask for turns or end."""
        return any(not server.futures for server in self._servers)

    def begin(self, task: Task) -> bool:
        """Begin the rounds of a task that trains a reference by a federation; return whether there are any to play."""
        reference, problem = task.cell.reference, task.cell.problem
        # An engine has processes of its own for the parties.
        if self._most == 0 or not task.trains or problem.federation is None or problem.engine is not None:
            return False
        if reference is None or self._runner.store.has("models", reference.id):
            return False
        server = _Server(task)
        server.thread = threading.Thread(target=self._serve, args=(server,), daemon=True)
        self._servers.append(server)
        server.thread.start()
        return True

    def pass_on(self) -> list[Task]:
        """Hand out what servers ask for, give them what has arrived, and return the tasks of those that have ended.

        Raises:
            UnlearnBenchError: If a server could not write its checkpoint.
        """
        ended = []
        if self._servers and not self.futures:
            time.sleep(THINKING_SECONDS)
        for server in list(self._servers):
            if server.futures and all(future.done for future in server.futures):
                server.answers.put(_results(server.futures))
                server.futures = []
            if not server.futures and not server.asked.empty():
                server.futures = [self._submitted(server, call) for call in server.asked.get()]
            elif not server.futures and server.thread is not None and not server.thread.is_alive():
                self._servers.remove(server)
                self._settle(server)
                ended.append(server.task)
        return ended

    def _submitted(self, server: _Server, call: tuple[Any, ...]) -> Future:
        """Hand out a turn, under a name by which a later run finds the same turn from the same weights."""
        function, _, *arguments = call
        digest = hashlib.sha256(pickle.dumps((function.__name__, *arguments))).hexdigest()[:16]
        name = f"{stage_names(server.task.cell)[0]}{PART}{digest}"
        return self._engine.submit(replace(self._need, name=name), *call)

    def _settle(self, server: _Server) -> None:
        """Note why a training failed, so that its stage need not try it again; raise what is not of the training."""
        if isinstance(server.error, TrainingFailedError):
            reference = server.task.cell.reference
            assert reference is not None
            name = f"{REFERENCES[reference.role]} of seed {reference.seed}"
            self._runner.broken[reference.id] = f"{name} failed: {server.error}"
        elif server.error is not None:
            raise server.error

    def _serve(self, server: _Server) -> None:
        """Play all rounds, in the server's own thread, and leave a checkpoint after the last."""
        cell = server.task.cell
        assert cell.reference is not None
        order = self._runner.federation_order(cell)
        try:
            with self._runner.store.begun("models", cell.reference.id) as checkpoint:
                if checkpoint is not None:
                    training = self._training(server, order)
                    training.train(checkpoint)
                    training.save(checkpoint)
        except _StoppedError:
            return
        # Whoever waits is told, whatever it is.
        except BaseException as error:
            server.error = error

    def _training(self, server: _Server, order: FederationOrder) -> FederatedTraining:
        """Return the training whose rounds are played by workers."""
        cell = server.task.cell

        def average(training: FederatedTraining, drawn: Sequence[int]) -> State:
            weights = packed(training.model.state_dict())
            turns = [(play_turn, self._post, cell.id, training.epoch, party, weights) for party in drawn]
            return averaged((unpacked(content), images) for content, images in server.ask(turns))

        def accuracy(model: Any) -> float:
            (found,) = server.ask([(judge_round, self._post, cell.id, packed(model.state_dict()))])
            return float(found)

        return server_training(order, cell.problem.info.train_counts, average, accuracy, self._runner.store.say)


def _results(futures: Sequence[Future]) -> list[Any] | BaseException:
    """Return the results of futures that are done, or why there are none."""
    try:
        return [future.result() for future in futures]
    except TrainingFailedError as error:
        return error
    # A worker that died, and what a network of a plugin raises, fail the training and not the run.
    except Exception as error:
        return TrainingFailedError(str(error) or type(error).__name__)
