"""The problem that the benchmarks run on: CIFAR-100 and ResNet-20, as in the paper."""

from __future__ import annotations

import functools
import sys

import torch
from torch import nn

from unlearnbench.datasets.dataset import open_dataset
from unlearnbench.errors import DatasetError
from unlearnbench.models.build import Network
from unlearnbench.models.device_data import LoadedData
from unlearnbench.models.recipe import TrainingRecipe

RECIPE = TrainingRecipe(epochs=1, batch_size=64, learning_rate=0.1, padding=4, horizontal_flip=True, weight_decay=1e-4)
NETWORK = Network("resnet20", {}, 100, (3, 32, 32))


def device() -> torch.device:
    """Return the GPU if there is one, and the CPU otherwise."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.cache
def data() -> LoadedData:
    """Return CIFAR-100 on the device; if it is missing, end the process with the command that adds it."""
    try:
        return LoadedData(open_dataset("cifar100"), RECIPE, device())
    except DatasetError as error:
        sys.exit(f"the benchmarks measure on CIFAR-100: {error}")


def network() -> nn.Module:
    """Return a fresh ResNet-20 on the device."""
    return NETWORK.build(0, "original").to(device())


def wait() -> None:
    """Wait for the GPU, so that a clock measures the work and not only its launch."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
