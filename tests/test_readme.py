"""The README's examples work as they stand there."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.paths import REPOSITORY
from torch import nn

from unlearnbench.experiment.plan import make_plan
from unlearnbench.experiment.resolve import resolve
from unlearnbench.frontends.cli import app
from unlearnbench.results.load import load_records
from unlearnbench.results.ranking import rows_by_problem
from unlearnbench.results.tables import cells
from unlearnbench.unlearners.contract import check_unlearner
from unlearnbench.unlearners.task import UnlearningTask

ROOT = REPOSITORY
README = (ROOT / "README.md").read_text()


def block(language: str, containing: str) -> str:
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)
    return next(text for text in blocks if containing in text)


def test_the_example_unlearner_keeps_to_the_contract() -> None:
    names: dict[str, Any] = {"copy": copy, "torch": torch, "F": F, "nn": nn, "UnlearningTask": UnlearningTask}
    exec(block("python", "def masked_distillation"), names)
    check_unlearner(names["masked_distillation"], {"learning_rate": 0.01, "epochs": 20})


def test_the_example_manifest_is_valid(tmp_path: Path) -> None:
    manifest = tmp_path / "example.toml"
    manifest.write_text(block("toml", "[problem]"))
    plan = make_plan(resolve(manifest))
    assert [cell.method.label for cell in plan.cells][:4] == ["original", "fdr", "wd", "erwp-sgd beta=8"]
    assert len(plan.cells) == 5 * (2 + 1 + 5)


def test_the_example_of_faults_is_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = block("console", "validate wrong.toml").partition("\n")[2]
    faults = (
        "forget_classes = [12]\nlimited_share = 0.1\n[training]\nepochs = 2\nbatch_size = 64\nlearning_rate = 0.1\n"
        'schedule = "constant"\n'
    )
    head = 'seeds = [0]\n\n[dataset]\nname = "digits"\n\n[architecture]\nname = "digits_net"\n[problem]\n'
    method = '\n\n\n[[unlearners]]\nname = "folnrc"\noptions.epoch = 3\n'
    (tmp_path / "wrong.toml").write_text(head + faults + method)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        app(["validate", "wrong.toml"])
    assert ended.value.code == 1
    found = capsys.readouterr().err
    assert re.sub(r":\d+:", ":", found) == re.sub(r":\d+:", ":", printed)


def test_every_command_of_the_readme_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app(["--help"])
    shown = capsys.readouterr().out
    rows = re.findall(r"^\| `(\w+)", README, re.M)
    commands = {name for name in rows if name in {"run", "validate", "list", "table", "leaderboard", "check", "doctor"}}
    assert len(commands) == 7
    assert all(name in shown for name in [*commands, "show", "relevance"])


def test_the_tables_are_those_of_the_committed_records() -> None:
    for name in ("digits", "cifar100-resnet20-fast", "cifar100-resnet20-fast-zoo"):
        (rows,) = rows_by_problem(load_records(ROOT / "leaderboard" / "records" / name))
        for row in rows:
            assert f"| {' | '.join(cells(row, rows))} |" in README
