"""A network before training: how it is built, and which weights its training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from unlearnbench.models.checkpoints import load_weights
from unlearnbench.models.classifier import build_network
from unlearnbench.models.random_state import own_random_state
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.models.weights import Weights
from unlearnbench.seeds import derived_seed

# Random streams that are not called as their role is: FDR keeps the one that its published models were trained with.
STREAMS = {"fdr": "retrained"}


@dataclass(frozen=True)
class Network:
    """How to build a network, and which weights its training starts from.

    Attributes:
        name: Name of the architecture.
        options: Options of the architecture.
        num_classes: K outputs.
        shape: Channels, height and width of the input.
        start: Weights that training starts from; None means random ones.
    """

    name: str
    options: dict[str, Any]
    num_classes: int
    shape: tuple[int, int, int]
    start: Weights | None = None

    def build(self, seed: int, role: str) -> nn.Module:
        """Return the network as it is when the training of a role ("original" or "fdr") starts.

        The global random states are left as they were.

        Raises:
            InvalidFileError: If the weights to start from do not fit the network.
        """
        network = self.unfilled(derived_seed(seed, STREAMS.get(role, role), "weights"))
        if self.start is not None:
            load_weights(network, self.start, new_classifier=True)
        return network

    def unfilled(self, seed: int = 0) -> nn.Module:
        """Return the network with random weights, whichever weights training starts from."""
        with own_random_state(seed):
            return build_network(self.name, self.options, self.num_classes, self.shape)

    def filled(self, weights: Weights) -> nn.Module:
        """Return the network filled with the weights of a whole model.

        Raises:
            InvalidFileError: If the weights do not fit the network.
        """
        network = self.unfilled()
        load_weights(network, weights, new_classifier=False)
        return network


def input_shape(shape: Sequence[int], recipe: TrainingRecipe) -> tuple[int, int, int]:
    """Return channels, height and width of what the network sees of images of the given shape."""
    channels, height, width = shape
    return (channels, recipe.crop, recipe.crop) if recipe.crop else (channels, height, width)
