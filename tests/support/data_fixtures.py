"""Fixtures for the tests that read data sets or fetch files; these tests load them as a plugin."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.tiny_data import WebServer
from unlearnbench.datasets.builtin import cifar100, cub200


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty data folder, and hide the caches of other libraries."""
    folder = tmp_path / "data"
    monkeypatch.setenv("UNLEARNBENCH_DATA", str(folder))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def small_cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CIFAR-100's reader take four classes as complete."""
    small = functools.partial(cifar100.find, classes=4, train_per_class=6, test_per_class=2)
    monkeypatch.setattr(cifar100, "find", small)


@pytest.fixture
def small_cub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CUB-200's reader take 24 classes of 3 + 1 images as complete."""
    monkeypatch.setattr(cub200, "find", functools.partial(cub200.find, classes=24, train=72, test=24))


@pytest.fixture
def server() -> Iterator[WebServer]:
    web = WebServer()
    yield web
    web.server.shutdown()
    web.server.server_close()
