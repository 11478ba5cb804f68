"""Weights on this machine: a file that cannot be read is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unlearnbench.errors import DatasetError
from unlearnbench.models.weights import find_weights


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    path = tmp_path / "own.pth"
    path.write_bytes(b"weights")
    message = f"'own.pth': {path} cannot be read: Permission denied"
    # Tests may run as root, whom file modes do not stop.
    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(DatasetError, match=re.escape(message)):
        find_weights("resnet20", "own.pth", tmp_path)
