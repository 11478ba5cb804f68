"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# This has to be set before torch is imported, so that this process and those that tests start use one thread each.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from support.commands import cli
from support.manifests import ERWP, FOLNRC, WD, manifest_text, write_manifest
from support.plugins import forget_plugins


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache and data folders out of the tests, including those of child processes."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("UNLEARNBENCH_DATA", str(folder / "data"))
        patch.setenv("COLUMNS", "200")
        yield


@dataclass(frozen=True)
class FinishedRun:
    """A finished run that tests share and must not change."""

    manifest: Path
    output: Path


SHORT = manifest_text(WD, FOLNRC, ERWP, head="seeds = [0, 1]").replace("epochs = 2\n", "epochs = 3\n")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Run all built-in unlearners with two seeds on a narrow network."""
    folder = tmp_path_factory.mktemp("finished")
    manifest = write_manifest(folder, SHORT, "short.toml")
    done = cli("run", manifest, "-o", folder / "runs", "--device", "cpu")
    assert done.code == 0, done.err
    return FinishedRun(manifest, folder / "runs")


@pytest.fixture
def search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put a new folder on the module search path, and forget which plugins were found before."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    forget_plugins()
    yield folder
    forget_plugins()
