"""Manifests written as TOML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli
from support.paths import REPOSITORY

from unlearnbench.experiment.manifest import Manifest
from unlearnbench.experiment.reader import read_manifest
from unlearnbench.experiment.writer import manifest_toml, moved

MANIFESTS = sorted((REPOSITORY / "manifests").glob("**/*.toml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_what_a_record_holds_of_a_manifest_gives_the_same_manifest(path: Path, tmp_path: Path) -> None:
    manifest = read_manifest(path).manifest()
    copy = tmp_path / path.name
    copy.write_text(manifest_toml(json.loads(json.dumps(manifest.model_dump(mode="json"))), "A comment"))
    assert read_manifest(copy).manifest() == manifest


@pytest.mark.parametrize(
    "value",
    [
        {"text": 'a "quoted" \\ back\nline\ttab \x7f é'},
        {"numbers": [1, -2, 3.5, 1e-05, 1e300, 2.0]},
        {"flags": [True, False]},
        {"odd key.with dot": 1, "": 2},
        {"deep": {"deeper": {"list": [[1, 2], [3]]}}},
    ],
)
def test_values_come_back_as_they_were(value: dict[str, Any]) -> None:
    text = manifest_toml({"name": "x", "options": value, "unlearners": [{"name": "y", "options": value}]})
    assert tomli.loads(text) == {"name": "x", "options": value, "unlearners": [{"name": "y", "options": value}]}


def test_what_is_not_said_is_left_out() -> None:
    text = manifest_toml({"b": None, "a": [], "problem": {"forget_last": 2, "limited_share": None, "matrix": {}}})
    assert text == "[problem]\nforget_last = 2\n"


def test_a_manifest_keeps_its_fields() -> None:
    assert set(Manifest.model_fields) >= {"name", "seeds", "dataset", "architecture", "problem", "training"}


def test_paths_lead_to_the_same_files_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "here" / "erwp").mkdir(parents=True)
    (tmp_path / "there").mkdir()
    (tmp_path / "here" / "mine.pth").touch()
    given = {
        "name": "mine",
        "architecture": {"name": "file:nets/my.py:make", "weights": "mine.pth", "start": "pytorchcv"},
        "references": {"original": "train", "fdr": str(tmp_path / "fdr.pth")},
        "unlearners": [{"name": "erwp"}, {"name": "file:own.py:forget", "options": {"start": "mine.pth"}}],
    }
    found = moved(given, tmp_path / "here", tmp_path / "there")
    assert found["architecture"] == {
        "name": "file:../here/nets/my.py:make",
        "weights": "../here/mine.pth",
        "start": "pytorchcv",
    }
    assert found["references"] == given["references"]
    assert found["unlearners"][1] == {"name": "file:../here/own.py:forget", "options": {"start": "mine.pth"}}
    assert moved(given, tmp_path / "here", tmp_path / "here") == given
