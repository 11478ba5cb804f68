"""Flower's strategies by name, each with the options that concern what the server makes of the parties' weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from unlearnbench.errors import PluginError, did_you_mean

# What Flower calls a strategy, and the options of its constructor that are a user's choice. Who trains in a round is
# the manifest's, and the keys of messages are this plugin's.
OPTIONS: dict[str, tuple[str, ...]] = {
    "FedAvg": (),
    "FedProx": ("proximal_mu",),
    "FedAvgM": ("server_learning_rate", "server_momentum"),
    "FedAdagrad": ("eta", "eta_l", "tau"),
    "FedAdam": ("eta", "eta_l", "beta_1", "beta_2", "tau"),
    "FedYogi": ("eta", "eta_l", "beta_1", "beta_2", "tau"),
    "FedMedian": (),
    "FedTrimmedAvg": ("beta",),
    "Krum": ("num_malicious_nodes",),
    "MultiKrum": ("num_malicious_nodes", "num_nodes_to_select"),
    "Bulyan": ("num_malicious_nodes",),
}
IN_A_ROUND = {"fraction_train": 1.0, "min_train_nodes": 1, "min_available_nodes": 1}


def check_strategy(name: str, options: Mapping[str, Any]) -> None:
    """Check that Flower has a strategy, and that it takes these options.

    Raises:
        PluginError: If not; the message names what there is.
    """
    if name not in OPTIONS:
        raise PluginError(f"flower has no strategy {name!r}{did_you_mean(name, OPTIONS)}")
    for key in options:
        if key not in OPTIONS[name]:
            raise PluginError(f"{name} has no option {key!r}{did_you_mean(key, OPTIONS[name])}")


def make_strategy(name: str, options: Mapping[str, Any]) -> Any:
    """Return one of Flower's strategies, which asks all parties that it is shown.

    Args:
        name: Name of the strategy.
        options: Its options; those that are left out have Flower's defaults.

    Raises:
        PluginError: If there is no such strategy, or Flower refuses the options.
    """
    check_strategy(name, options)
    kind = getattr(import_module("flwr.serverapp.strategy"), name)
    known = inspect.signature(kind).parameters
    try:
        return kind(**{key: value for key, value in {**IN_A_ROUND, **options}.items() if key in known})
    except (TypeError, ValueError) as error:
        raise PluginError(f"{name}: {error}") from error


def memory_of(strategy: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return what a strategy remembers from round to round, as arrays by the names `ATTRIBUTE/KEY`.

    Of Flower's strategies those with an optimizer at the server keep moments, as tables or as lists of arrays.
    """
    found = {}
    for attribute, value in vars(strategy).items():
        if attribute == "current_arrays" or not isinstance(value, dict | list):
            continue
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found.update({f"{attribute}/{key}": array for key, array in items if isinstance(array, np.ndarray)})
    return found


def remember(strategy: Any, memory: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Give a strategy what `memory_of` returned, so that it goes on as if it had played the rounds before."""
    tables: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    for name, array in memory.items():
        attribute, _, key = name.partition("/")
        tables.setdefault(attribute, {})[key] = array
    for attribute, table in tables.items():
        listed = all(key.isdigit() for key in table)
        setattr(strategy, attribute, [table[str(index)] for index in range(len(table))] if listed else table)
