"""What the tests share: a small federation on real digits."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

# Without flwr the package may not be installed; what does without it is tested all the same.
sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest
from unlearnbench.datasets.dataset import Dataset, Part, open_dataset
from unlearnbench.engine.federated.order import FederationOrder
from unlearnbench.models.build import Network
from unlearnbench.models.federation.federation import Federation
from unlearnbench.models.recipe import TrainingRecipe

RECIPE = TrainingRecipe(epochs=2, batch_size=64, learning_rate=0.1, schedule="one_cycle", precision="float32")


def part(*, test: bool) -> Part:
    digits = open_dataset("digits")
    return digits.test() if test else digits.train()


def make_order(**settings: Any) -> FederationOrder:
    federation = Federation(**{"parties": 3, "rounds": 2, **settings})
    dataset = Dataset(open_dataset("digits").info, partial(part, test=False), partial(part, test=True))
    network = Network("digits_net", {"width": 4}, 10, (1, 8, 8))
    return FederationOrder(network, "original", 0, tuple(range(10)), RECIPE, federation, dataset)


@pytest.fixture
def order() -> Any:
    return make_order
