"""The conformance suite: `pytest --pyargs unlearnbench.conformance --unlearner NAME`."""

from __future__ import annotations

import pytest

from unlearnbench.engine.processes.isolated import check_results
from unlearnbench.errors import did_you_mean
from unlearnbench.registry.entry_points import names
from unlearnbench.unlearners.contract import require_passed


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for every unlearner that was asked for, or for every installed one if none was.

    Raises:
        pytest.Collector.CollectError: If one that was asked for is not installed.
    """
    if "unlearner" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--unlearner")
        known = names("unlearners")
        for name in asked:
            if name not in known:
                hint = did_you_mean(name, known)
                raise pytest.Collector.CollectError(f"--unlearner {name}: no such unlearner is installed{hint}")
        metafunc.parametrize("unlearner", asked or known)


def test_it_keeps_to_the_contract(unlearner: str) -> None:
    """Run all checks of an unlearner; one that is not applicable to the small problem is skipped."""
    results = list(check_results(unlearner))
    for result in results:
        if result.status == "not applicable":
            pytest.skip(f"not applicable: {result.message}")
    require_passed(unlearner, results)
