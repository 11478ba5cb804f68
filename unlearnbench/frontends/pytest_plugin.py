"""The pytest plugin: the option of the conformance suite, and manifests with expectations as tests.

pytest loads this module at every start in every project, so that it imports nothing but pytest itself; functions
import everything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from unlearnbench.experiment.resolve import Resolved
    from unlearnbench.results.records.record import Record
    from unlearnbench.results.report.expectations import Expectation


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the benchmark."""
    group = parser.getgroup("unlearnbench")
    group.addoption(
        "--unlearner",
        action="append",
        default=[],
        metavar="NAME",
        help="unlearner that `--pyargs unlearnbench.conformance` checks (repeatable; all installed ones if left out)",
    )
    group.addoption(
        "--unlearnbench-output",
        default="runs",
        metavar="DIR",
        help="output folder for manifests that are given as tests (runs)",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.File | None:
    """Collect a manifest if it is named on the command line."""
    if file_path.suffix != ".toml" or not parent.session.isinitpath(file_path):
        return None
    import tomllib

    try:
        raw = tomllib.loads(file_path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    if "expect" in raw:
        return ManifestTests.from_parent(parent, path=file_path)
    # Other TOML files are not tests, but a manifest that was named should not be skipped silently.
    return NothingExpected.from_parent(parent, path=file_path) if {"dataset", "problem"} <= raw.keys() else None


class NothingExpected(pytest.File):
    """A manifest that was named but has no expectations."""

    def collect(self) -> Iterator[pytest.Item]:
        """Report that there is nothing to test.

        Raises:
            pytest.Collector.CollectError: In every case.
        """
        raise self.CollectError(
            f"{self.path.name}: has no [expect] table, so that there is nothing to test; for example\n"
            "  [expect.erwp]\n  retain_accuracy = { min = 0.9 }"
        )


class ManifestTests(pytest.File):
    """A manifest with a test for each expectation; whatever is not done yet runs before the first test."""

    @cached_property
    def resolved(self) -> Resolved:
        """The resolved manifest."""
        from unlearnbench.experiment.resolve import resolve

        return resolve(self.path)

    @cached_property
    def records(self) -> list[Record]:
        """Records of all cells of the manifest."""
        from unlearnbench.engine.engines.crew import device_precision
        from unlearnbench.engine.executor import finish
        from unlearnbench.engine.recording import plan_for

        output = Path(self.config.getoption("--unlearnbench-output"))
        return finish(plan_for(self.resolved, output, device_precision("auto")), output)

    def collect(self) -> Iterator[ExpectationTest]:
        """Yield a test for each expectation.

        Raises:
            pytest.Collector.CollectError: If the manifest has faults.
        """
        from unlearnbench.errors import UnlearnBenchError
        from unlearnbench.results.report.expectations import expectations

        try:
            manifest = self.resolved.manifest
        except UnlearnBenchError as error:
            raise self.CollectError(str(error)) from error
        for expectation in expectations(manifest):
            yield ExpectationTest.from_parent(self, name=expectation.name, expectation=expectation)


class ExpectationTest(pytest.Item):
    """One expectation of a manifest."""

    def __init__(self, *, expectation: Expectation, **rest: Any) -> None:
        super().__init__(**rest)
        self.expectation = expectation

    def runtest(self) -> None:
        """Run the manifest unless that is done, and compare its records with the expectation."""
        assert isinstance(self.parent, ManifestTests)
        faults = self.expectation.faults(self.parent.records)
        if faults:
            pytest.fail("\n".join(faults), pytrace=False)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return the location of the test, as pytest prints it."""
        return self.path, None, f"{self.path.name}: {self.name}"
