"""The conformance suite: `pytest --pyargs unlearnbench.conformance --unlearner NAME`."""

from __future__ import annotations

import pytest

from unlearnbench.registry import find, names
from unlearnbench.testing import check_unlearner


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for every unlearner that was asked for, for every installed one if none was."""
    if "unlearner" in metafunc.fixturenames:
        metafunc.parametrize("unlearner", metafunc.config.getoption("--unlearner") or names("unlearners"))


def test_it_keeps_to_the_contract(unlearner: str) -> None:
    """Run all checks of an unlearner; a method that is not applicable to the small problem is skipped."""
    findings = check_unlearner(find("unlearners", unlearner).load())
    for finding in findings:
        if finding.status == "not applicable":
            pytest.skip(f"not applicable: {finding.message}")
