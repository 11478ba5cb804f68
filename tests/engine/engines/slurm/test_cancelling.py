"""Whether the jobs of an interrupted run are cancelled; this does without Slurm."""

from __future__ import annotations

import io
import sys

import pytest

from unlearnbench.engine.engines.slurm.cluster import _agrees


class Terminal(io.StringIO):
    """A terminal at which somebody types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "agrees"), [("n\n", False), (" No\n", False), ("y\n", True), ("\n", True), ("", True)]
)
def test_who_is_asked_may_leave_the_jobs_running(
    typed: str, agrees: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert _agrees("cancel 2 jobs? [Y/n] ") is agrees
    assert capsys.readouterr().err == "\ncancel 2 jobs? [Y/n] "


def test_nobody_is_asked_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert _agrees("cancel 2 jobs? [Y/n] ")
    assert capsys.readouterr().err == ""
