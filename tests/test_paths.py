"""Paths below a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from unlearnbench.errors import InvalidFileError
from unlearnbench.paths import below


def test_a_path_below_a_folder_is_opened(tmp_path: Path) -> None:
    assert below(tmp_path, "a/b.json") == tmp_path / "a" / "b.json"
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert below(tmp_path / "link", "x") == tmp_path / "link" / "x"


@pytest.mark.parametrize("place", ["..", "../x", "/etc/passwd", "a/../../x", "", ".", "out/x", "loop/x", "a\x00b"])
def test_a_path_that_leads_out_of_a_folder_is_refused(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    with pytest.raises(InvalidFileError) as caught:
        below(folder, place)
    assert str(caught.value) == f"{folder}: {place!r} leads out of this folder"
