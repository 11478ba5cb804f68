"""What a node computes: the function's own result or exception goes back, and nothing else counts as one."""

from __future__ import annotations

import itertools
import pickle
import threading
from typing import Any

import pytest

from unlearnbench.engine.engines.engine import DiedError, Listener
from unlearnbench.engine.engines.relay import computed


def product(told: Listener, first: int, second: int) -> int:
    with told.stage("multiplying", 1):
        told.advance(1)
    return first * second


def quotient(told: Listener, number: int) -> float:
    return 1 / number


def a_lock(told: Listener) -> Any:
    return threading.Lock()


def sent(function: Any, *arguments: Any) -> bytes:
    return pickle.dumps((function, arguments))


def test_a_value_goes_back_with_the_news_of_its_making() -> None:
    news: list[tuple[Any, ...]] = []
    value, error = pickle.loads(computed(sent(product, 6, 7), 1, lambda *message: news.append(message)))
    assert (value, error) == (42, None)
    # On a busy machine, the process says several times how far it is.
    assert [kind for kind, _ in itertools.groupby(message[0] for message in news)][:3] == ["begin", "advance", "end"]
    assert sum(message[1] for message in news if message[0] == "advance") == 1


def test_an_exception_of_the_function_goes_back() -> None:
    value, error = pickle.loads(computed(sent(quotient, 0), 1, lambda *message: None))
    assert value is None
    assert isinstance(error, ZeroDivisionError)


def test_what_cannot_be_read_or_sent_is_named() -> None:
    _, unreadable = pickle.loads(computed(b"no pickle", 1, lambda *message: None))
    assert isinstance(unreadable, pickle.UnpicklingError)
    _, unsendable = pickle.loads(computed(sent(a_lock), 1, lambda *message: None))
    assert isinstance(unsendable, DiedError)


def test_an_exception_of_whoever_waits_is_not_taken_for_the_functions() -> None:
    # As a handler of a signal raises it, by which a cluster ends a job.
    def tell(*message: Any) -> None:
        raise ConnectionError("the job is over")

    with pytest.raises(ConnectionError, match="the job is over"):
        computed(sent(product, 6, 7), 1, tell)
