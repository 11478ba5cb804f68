"""What doctor finds in an installation; the command itself is tested with the other commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import cli
from support.paths import REPOSITORY

from unlearnbench.frontends import doctor

PROJECT = REPOSITORY / "pyproject.toml"


@pytest.mark.slow
def test_a_data_folder_that_is_a_file_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "file"
    place.write_text("")
    for folder in (place, place / "below"):
        monkeypatch.setenv("UNLEARNBENCH_DATA", str(folder))
        done = cli("doctor")
        assert done.code == 1
        assert f"PROBLEM  data folder: {place} is not a folder; set UNLEARNBENCH_DATA to another\n" in done.out


def test_a_data_folder_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: mode == doctor.os.F_OK)
    assert doctor._folder(tmp_path) == (f"{tmp_path} cannot be read; set UNLEARNBENCH_DATA to another", False)


@pytest.mark.slow
def test_an_output_folder_is_tried_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "deep" / "runs"
    assert doctor._output(output) == (f"{output} can be written, and locks work there", True)
    assert list(tmp_path.iterdir()) == []

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    done = cli("doctor", "-o", output)
    assert done.code == 1
    assert (
        f"PROBLEM  output folder: the file system of {output} has no locks: No locks available; name a folder on "
        "another with --output\n"
    ) in done.out


def test_an_output_folder_below_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert doctor._output(tmp_path / "file" / "runs") == (
        f"{tmp_path}/file is not a folder; name another with --output",
        False,
    )


def test_an_installation_older_than_its_source_tree_is_a_problem(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    new = '[project.entry-points."unlearnbench.metrics"]\nnewest = "unlearnbench.metrics.newest:newest"\n'
    project.write_text(PROJECT.read_text().replace('[project.entry-points."unlearnbench.metrics"]\n', new))
    (finding,) = doctor._stale_installation(project)
    assert (finding.what, finding.good) == ("installation", False)
    assert finding.text == f"older than {project}: newest\n           in {tmp_path}: pip install -e ."


def test_an_installation_without_a_source_tree_has_nothing_to_be_older_than(tmp_path: Path) -> None:
    assert list(doctor._stale_installation(tmp_path / "pyproject.toml")) == []
