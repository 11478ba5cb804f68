"""Wrong use ends in exit code 2 everywhere: an option that is none, a path that leads nowhere, a choice of several."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import FinishedRun
from support.commands import cli

WRONG = [
    "run nowhere.toml",
    "run {manifest} --only nothing",
    "run {manifest} --device tpu",
    "run {manifest} --jobs 0",
    "validate nowhere.toml",
    "table nowhere",
    "table {manifest}",
    "evaluate nowhere",
    "evaluate {runs} --metric nothing",
    "relevance nowhere",
    "report nowhere",
    "compare {runs} nowhere",
    "export {runs} --to xml",
    "export nowhere --to csv",
    "list nothing",
    "show nothing",
    "check nothing",
    "tune nowhere.toml",
    "new-plugin 2nd",
    "data add image_folder nowhere",
    "data fetch nothing",
    "data remove nothing",
    "data list --nothing",
    "leaderboard check nowhere",
    "leaderboard build nowhere",
    "submit nowhere",
    "reproduce nowhere",
    "reproduce {runs}/records",
    "init new.toml",
    "init new.toml --data nowhere --architecture resnet18 --weights nowhere.pth --forget a",
    "export-model nowhere -o new.pt",
    "export-model {runs} -o new.pt",
    "export-model {runs} -o new.txt --only wd --seed 0",
    "certificate",
    "certificate {runs} --only nothing",
    "certificate --verify nowhere.json",
    "certificate {runs} --only wd --seed 0 --limits nowhere.toml",
    "judge nowhere.pth {manifest}",
    "judge nowhere.pth nowhere.toml",
    "nothing",
]


@pytest.mark.parametrize("command", WRONG)
def test_wrong_use_is_told_with_exit_code_2(
    finished: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli(*command.format(manifest=finished.manifest, runs=finished.output).split())
    assert (done.code, done.out) == (2, "")
    assert done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_output_folder_that_is_not_named_is_runs(
    finished: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.output.parent)
    done = cli("run", finished.manifest, "--device", "cpu")
    assert (done.code, "all 10 cells are done already" in done.err) == (0, True), done.err
    monkeypatch.chdir(tmp_path)
    assert cli("doctor").out


def test_shells_are_completed() -> None:
    assert "--install-completion" in cli("--help").out
