"""Every built-in unlearner works with the share of a party that lacks a retain and a forget class."""

from __future__ import annotations

import copy

import pytest
import torch

from unlearnbench.registry.entry_points import Plugin, installed
from unlearnbench.registry.options import call_arguments, plugin_schema, resolve_options
from unlearnbench.unlearners.builtin.erwp import ErwpOptions, erwp
from unlearnbench.unlearners.toy_problem import small_problem

BUILT_IN = [plugin for plugin in installed("unlearners") if plugin.distribution == "unlearnbench"]
MISSING = (0, 8)


@pytest.mark.parametrize("plugin", BUILT_IN, ids=lambda plugin: plugin.name)
def test_a_share_without_two_of_the_classes_is_enough(plugin: Plugin) -> None:
    problem = small_problem()
    task = problem.task(missing=MISSING)
    assert [int(task.limited_counts[label]) for label in (*MISSING, 9)] == [0, 0, 14]
    short = {"epochs": 1} if any(option.name == "epochs" for option in plugin_schema(plugin)) else {}
    options, faults = resolve_options(plugin, short)
    assert not faults
    unlearner = plugin.load()
    model = unlearner(copy.deepcopy(problem.original), task, **call_arguments(unlearner, options))
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
    assert problem.accuracy(model, forget=False) > 0.05


def test_erwp_searches_the_classes_that_there_are_and_says_which_there_are_not() -> None:
    problem = small_problem()
    task = problem.task(missing=MISSING)
    erwp(copy.deepcopy(problem.original), task, options=ErwpOptions(augmentation="rotation", epochs=1))
    assert task.details["not_searched_classes"] == [8]
    whole = problem.task()
    erwp(copy.deepcopy(problem.original), whole, options=ErwpOptions(augmentation="rotation", epochs=1))
    assert "not_searched_classes" not in whole.details
    # The union over one class is no larger than that over both.
    assert 0 < task.details["relevant_share"] <= whole.details["relevant_share"]
