"""What workers do for a federation whose parties train apart: a turn of a party, or judging the server's model."""

from __future__ import annotations

from safetensors.torch import load, save

from unlearnbench.engine.engines.engine import Listener
from unlearnbench.engine.runner import Runner
from unlearnbench.engine.worker import Post, runner_of
from unlearnbench.models.federation.training import FederatedTraining, State
from unlearnbench.models.random_state import own_random_state
from unlearnbench.terms import REFERENCES


def packed(state: State) -> bytes:
    """Return tensors in a form that can be sent, from whichever device they are on."""
    return save({name: value.detach().cpu().contiguous() for name, value in state.items()})


def unpacked(content: bytes) -> State:
    """Return the tensors that `packed` was given."""
    return load(content)


def play_turn(told: Listener, post: Post, identity: str, index: int, party: int, weights: bytes) -> tuple[bytes, int]:
    """Let a party train in a round, and return what it sends: packed weights, and its number of images.

    Args:
        told: Listener that follows the progress.
        post: What the worker has to know.
        identity: Id of the cell of the reference that the federation trains.
        index: Number of the round, counted from 0.
        party: Number of the party.
        weights: The server's packed weights and buffers before the round.

    Raises:
        TrainingFailedError: If the loss is not finite.
    """
    training = _training(told, post, identity)
    training.model.load_state_dict(unpacked(weights))
    training.epoch = index
    name = f"{REFERENCES[training.role]}, seed {training.seed}: party {party}, round {index + 1}"
    # The images count when the model is made, which is where a run that is taken up again counts them too.
    with told.stage(name, None), own_random_state(0):
        ((state, held),) = training.sent([party])
    return packed(state), held


def judge_round(told: Listener, post: Post, identity: str, weights: bytes) -> float:
    """Return the accuracy of the server's packed weights after a round; the arguments are those of `play_turn`."""
    training = _training(told, post, identity)
    training.model.load_state_dict(unpacked(weights))
    assert training.accuracy is not None
    return training.accuracy(training.model.eval())


# A worker plays many turns of the same few trainings, whose networks and images it keeps.
_kept: dict[str, tuple[Runner, FederatedTraining]] = {}


def _training(told: Listener, post: Post, identity: str) -> FederatedTraining:
    runner, cells = runner_of(post, told)
    if identity not in _kept or _kept[identity][0] is not runner:
        _kept[identity] = (runner, runner.federated_training(cells[identity]))
    return _kept[identity][1]
