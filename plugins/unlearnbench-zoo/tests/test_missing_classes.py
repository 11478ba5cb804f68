"""Every unlearner of the zoo works with the share of a party that lacks a retain and a forget class."""

import copy
from importlib.metadata import distribution

import pytest
import torch
from unlearnbench.registry.entry_points import find
from unlearnbench.registry.options import call_arguments, plugin_schema, resolve_options
from unlearnbench.unlearners.toy_problem import small_problem

NAMES = sorted(entry.name for entry in distribution("unlearnbench-zoo").entry_points)


@pytest.mark.parametrize("name", NAMES)
def test_a_share_without_two_of_the_classes_is_enough(name: str) -> None:
    problem, plugin = small_problem(), find("unlearners", name)
    task = problem.task(missing=(0, 8))
    short = {"epochs": 1} if any(option.name == "epochs" for option in plugin_schema(plugin)) else {}
    options, faults = resolve_options(plugin, short)
    assert not faults
    unlearner = plugin.load()
    model = unlearner(copy.deepcopy(problem.original), task, **call_arguments(unlearner, options))
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
    assert problem.accuracy(model, forget=False) > 0.05
