"""An architecture in a file of the user's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.commands import cli
from support.manifests import WD, manifest_text, write_manifest
from support.plugins import forget_plugins

from unlearnbench.errors import PluginError
from unlearnbench.experiment.resolve import resolve
from unlearnbench.registry.entry_points import find
from unlearnbench.registry.plugin_file import located, short_name

NET = '''"""A network."""

from typing import Annotated

from pydantic import Field
from torch import nn


def make(num_classes: int, shape: tuple[int, int, int], *, width: Annotated[int, Field(gt=0)] = 8) -> nn.Module:
    """Return one hidden layer.

    Args:
        num_classes: Outputs.
        shape: Of the images.
        width: Hidden units.
    """
    pixels = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, num_classes))
'''
ARCHITECTURE = '[architecture]\nname = "file:my_net.py:make"\noptions = { width = 16 }'


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "my_net.py").write_text(NET)
    forget_plugins()
    return write_manifest(tmp_path, manifest_text(WD, architecture=ARCHITECTURE))


def problem_id(manifest: Path) -> str:
    forget_plugins()
    return resolve(manifest).problems[0].id


@pytest.mark.slow
def test_a_function_in_a_file_beside_the_manifest_is_a_network(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = cli("run", manifest, "-o", tmp_path / "runs", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    # Neither records nor tables hold the folders of this machine.
    assert {row["problem"].rpartition("-")[0] for row in done.json} == {"digits-file-my_net.py-make-forget2-10pct"}
    for record in (tmp_path / "runs" / "records").rglob("*.json"):
        assert str(tmp_path) not in record.read_text()


def test_its_options_are_checked_like_those_of_a_plugin(manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace("width = 16", "depth = 2"))
    expected = f"{manifest}:6: architecture.options.depth: file:{manifest.parent}/my_net.py:make has no option 'depth'"
    assert cli("validate", manifest).err.startswith(expected)


def test_the_code_of_the_file_names_the_problem_and_its_comments_and_place_do_not(
    manifest: Path, tmp_path: Path
) -> None:
    before = problem_id(manifest)
    (tmp_path / "my_net.py").write_text(NET.replace('"""A network."""', "# A comment."))
    assert problem_id(manifest) == before
    (tmp_path / "moved").mkdir()
    for file in (tmp_path / "my_net.py", manifest):
        file.rename(tmp_path / "moved" / file.name)
    assert problem_id(tmp_path / "moved" / manifest.name) == before
    (tmp_path / "moved" / "my_net.py").write_text(NET.replace("nn.ReLU", "nn.GELU"))
    assert problem_id(tmp_path / "moved" / manifest.name) != before


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "file:my_net.py",
            "'file:my_net.py' does not name a function of a file\n  The form is file:PATH.py:FUNCTION",
        ),
        ("file:other.py:make", "'file:{0}/other.py:make': {0}/other.py cannot be read: No such file or directory"),
        (
            "file:my_net.py:mak",
            "'file:{0}/my_net.py:mak': {0}/my_net.py defines no 'mak'\n  Did you mean 'make'? Valid: make",
        ),
        ("file:broken.py:make", "'file:{0}/broken.py:make': {0}/broken.py is not a Python file that can be read"),
    ],
)
def test_a_place_without_a_function_is_refused(manifest: Path, tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "broken.py").write_text("def make(:")
    with pytest.raises(PluginError, match=f"^{re.escape(told.format(tmp_path))}$"):
        find("architectures", located(name, tmp_path))


def test_only_a_network_can_be_in_a_file(manifest: Path) -> None:
    with pytest.raises(PluginError, match=r"^no unlearner 'file:my_net\.py:make' is installed\n"):
        find("unlearners", "file:my_net.py:make")


def test_names_of_other_plugins_are_left_as_they_are() -> None:
    assert located("resnet20", Path("/x")) == short_name("resnet20") == "resnet20"
