"""The lock of versions, and the golden run that guards the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import versions


def test_no_code_moved_without_its_version() -> None:
    lines = versions.moved(versions.read_lock(), versions.present_versions())
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize(
    ("now", "line"),
    [
        ({"a": {"version": 1, "digest": "x"}}, None),
        (
            {"a": {"version": 1, "digest": "y"}},
            "a: the code changed and version 1 did not\n  If its results change too, raise the version; "
            "if they do not: python tests/versions.py --confirm",
        ),
        ({"a": {"version": 2, "digest": "y"}}, "a: version 1 is 2 now"),
        ({}, "a: gone"),
    ],
)
def test_what_moved_is_named_with_the_way_out(now: versions.Versions, line: str | None) -> None:
    assert versions.moved({"a": {"version": 1, "digest": "x"}}, now) == ([] if line is None else [line])


@pytest.mark.slow
def test_the_golden_run_gives_the_golden_numbers(tmp_path: Path) -> None:
    golden = json.loads(versions.NUMBERS.read_text())
    found = versions.golden_run(tmp_path)
    assert all(found.keys() == numbers.keys() for numbers in golden.values())
    assert versions.differences(found, golden) == []


def test_one_other_number_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = json.loads(versions.NUMBERS.read_text())
    machine = next(iter(golden))
    monkeypatch.setattr(versions, "rounding", lambda: machine)
    found = json.loads(json.dumps(golden[machine]))
    assert versions.differences(found, golden) == []
    found["erwp"]["retain_accuracy"] += 1e-6
    assert len(versions.differences(found, golden)) == 1
    monkeypatch.setattr(versions, "rounding", lambda: "another processor")
    assert versions.differences(found, golden) == []
    found["erwp"]["retain_accuracy"] -= 0.2
    assert len(versions.differences(found, golden)) == 1
