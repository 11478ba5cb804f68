"""Tests of what a figure says when it lacks something."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from unlearnbench.results.figures.drawing import Drawing, NotDrawnError, each_drawn


def lacking(*reasons: str) -> str:
    """Return what is said when each problem has its reason."""

    def draw(reason: str) -> Iterator[Drawing]:
        raise NotDrawnError(reason)
        yield

    with pytest.raises(NotDrawnError) as caught:
        list(each_drawn(functools.partial(draw, reason) for reason in reasons))
    return str(caught.value)


def test_a_board_without_its_store_is_told_two_reasons_and_their_number() -> None:
    assert lacking("a") == "a"
    assert lacking("a", "b", "a") == "a; b"
    assert lacking("a", "b", "c", "d") == "a; b; and 2 more for such reasons"
