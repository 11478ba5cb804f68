"""No call of Ray's is waited for without a limit."""

from __future__ import annotations

import threading

import pytest

from unlearnbench.engine.engines.ray_connection import answered


def test_an_answer_or_an_exception_of_a_call_comes_back() -> None:
    assert answered(lambda: 6 * 7) == 42
    with pytest.raises(ZeroDivisionError):
        answered(lambda: 1 / 0)


def test_a_call_that_never_answers_is_left_to_itself() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError):
        answered(never.wait, 0.05)
    never.set()
