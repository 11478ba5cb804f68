"""What goes between the benchmark and the server's app, and between that app and the parties.

Trainable weights travel as Flower's own arrays, buffers as safetensors. The order of a federation is pickled: it comes
from the server that also sends a party its code, and is as trustworthy as that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

State = dict[str, torch.Tensor]

# Keys of Flower's messages.
ARRAYS, CONFIG, METRICS, TURN, BUFFERS = "arrays", "config", "metrics", "turn", "buffers"
IMAGES, PROXIMAL = "num-examples", "proximal-mu"
# Files in the folder where the app finds the benchmark.
ADDRESS, KEY = "address", "key"
# What a message about something that was lost ends with.
GO_ON = "the same command goes on from the last checkpoint"


@dataclass(frozen=True)
class Opening:
    """What the server's app is told once.

    Attributes:
        strategy: Name of the strategy.
        options: Its options.
        nodes: Number of SuperNodes that there will be.
        order: Pickled `FederationOrder`.
        device: Device that the parties compute on.
        threads: Number of threads that each party computes with.
    """

    strategy: str
    options: dict[str, Any]
    nodes: int
    order: bytes
    device: str
    threads: int


@dataclass(frozen=True)
class Round:
    """A round that is to be played.

    Attributes:
        index: Number of the round, counted from 0.
        drawn: Numbers of the parties that train in it.
        weights: The server's trainable weights, as safetensors.
        buffers: Its buffers, as safetensors.
        memory: What the strategy remembers of the rounds before.
    """

    index: int
    drawn: tuple[int, ...]
    weights: bytes
    buffers: bytes
    memory: dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Played:
    """What a round came to.

    Attributes:
        weights: The server's new weights, by name.
        sent: For each party, in their order, its buffers as safetensors and its number of images.
        memory: What the strategy has to remember.
    """

    weights: dict[str, np.ndarray[Any, Any]]
    sent: tuple[tuple[bytes, int], ...]
    memory: dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Failed:
    """Why a round could not be played.

    Attributes:
        reason: One line.
    """

    reason: str


def packed(state: Mapping[str, torch.Tensor]) -> bytes:
    """Return tensors as safetensors."""
    return save({name: value.detach().cpu().contiguous() for name, value in state.items()})


def unpacked(content: bytes) -> State:
    """Return the tensors that `packed` was given."""
    return load(content)
