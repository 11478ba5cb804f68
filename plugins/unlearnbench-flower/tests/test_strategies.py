"""Strategies by name, and their options; this does without Flower."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from unlearnbench.errors import PluginError

from unlearnbench_flower.strategies import OPTIONS, check_strategy, memory_of, remember


@pytest.mark.parametrize("name", OPTIONS)
def test_a_strategy_takes_its_own_options(name: str) -> None:
    check_strategy(name, dict.fromkeys(OPTIONS[name], 0.1))


def test_an_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(PluginError) as caught:
        check_strategy("FedAdamm", {})
    assert str(caught.value).startswith("flower has no strategy 'FedAdamm'\n  Did you mean 'FedAdam'? Valid: Bulyan, ")


def test_an_option_of_another_strategy_is_refused() -> None:
    with pytest.raises(PluginError) as caught:
        check_strategy("FedAdam", {"server_momentum": 0.9})
    assert str(caught.value) == ("FedAdam has no option 'server_momentum'\n  Valid: beta_1, beta_2, eta, eta_l, tau")
    with pytest.raises(PluginError, match=r"^FedAvg has no option 'eta'\n  Valid: none$"):
        check_strategy("FedAvg", {"eta": 0.1})


def test_what_a_strategy_remembers_can_be_given_back() -> None:
    one = SimpleNamespace(m_t={"a.weight": np.arange(3.0)}, momentum_vector=[np.ones(2), np.zeros(1)], eta=0.1)
    other = SimpleNamespace(m_t=None, momentum_vector=None, eta=0.1)
    remember(other, memory_of(one))
    assert other.m_t["a.weight"].tolist() == [0, 1, 2]
    assert [value.tolist() for value in other.momentum_vector] == [[1, 1], [0]]
