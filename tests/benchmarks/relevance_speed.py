"""Speed of ERwP's relevance search against its literal order, on a network that has been trained for a while."""

from __future__ import annotations

import copy
import functools

import torch
from torch import nn

from tests.benchmarks.problem import RECIPE, data, network
from tests.benchmarks.ratio import Ratio, measure
from unlearnbench.models.training import ReferenceTraining
from unlearnbench.unlearners.builtin.relevance import RelevanceOptions, search
from unlearnbench.unlearners.builtin.relevance_search import LiteralLooks, Looks, QuickLooks
from unlearnbench.unlearners.task import UnlearningTask

FORGET = tuple(range(80, 100))


@functools.cache
def learned() -> nn.Module:
    """Return a ResNet-20 after two epochs on CIFAR-100, which take minutes on a CPU."""
    model = network()
    recipe = RECIPE.model_copy(update={"epochs": 2, "batch_size": 128, "schedule": "one_cycle", "learning_rate": 0.3})
    ReferenceTraining(model, data().train, torch.arange(len(data().train)), recipe, 0, "original").train()
    return model.eval()


def looks() -> Ratio:
    """Measure the quick search against the literal one, which must find the same masks."""
    masks: dict[type[Looks], dict[str, torch.Tensor]] = {}

    def run(kind: type[LiteralLooks] | type[QuickLooks]) -> None:
        task = UnlearningTask(data().limited((50,) * 100, 0), FORGET, 100, RECIPE, 0, nn.Identity)
        masks[kind], _ = search(copy.deepcopy(learned()), task, RelevanceOptions(), kind)

    found = measure(
        "relevance search, quick / literal (classes per s)", 5.0, 20, lambda: run(QuickLooks), lambda: run(LiteralLooks)
    )
    assert all(torch.equal(mask, masks[LiteralLooks][name]) for name, mask in masks[QuickLooks].items())
    return found
