"""Parties in workers of their own: the same models as in one process, and failures that end a training and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.clusters import checkpoints, kill_a_run, resume
from support.commands import cli
from support.federations import THREE, federated_text
from support.manifests import TRAINING, WD, write_manifest

from unlearnbench.engine.engines.engine import Need
from unlearnbench.engine.engines.local import LocalEngine
from unlearnbench.engine.parties.turns import play_turn
from unlearnbench.experiment.plan import make_plan
from unlearnbench.experiment.resolve import resolve
from unlearnbench.results.records.files import read_record
from unlearnbench.results.records.record import Record


def records(output: Path) -> dict[str, Record]:
    found = (read_record(path) for path in output.glob("records/*/*/*/seed-0.json"))
    return {record.method.label: record for record in found}


@pytest.mark.slow
def test_parties_apart_make_the_models_of_one_process(tmp_path: Path) -> None:
    text = federated_text(WD, head="seeds = [0]", federation=THREE)
    manifest = write_manifest(tmp_path, text, "together.toml")
    for name, more in (("one", ()), ("apart", ("--parties-apart",))):
        done = cli("run", manifest, "-o", tmp_path / name, "--device", "cpu", *more)
        assert done.code == 0, done.err
    one, apart = (records(tmp_path / name) for name in ("one", "apart"))
    assert one.keys() == apart.keys() == {"original", "fdr", "wd"}
    for label, record in one.items():
        assert apart[label].files["model"].sha256 == record.files["model"].sha256, label
        assert apart[label].rounds == record.rounds
        assert apart[label].image_passes == record.image_passes
        assert apart[label].metrics == record.metrics
    assert list((tmp_path / "apart" / "store").rglob("*.partial")) == []


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_rounds_that_it_has_not_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = TRAINING.replace("epochs = 2", "epochs = 12")
    text = federated_text(WD, federation=THREE.replace("rounds = 2", "rounds = 12"), training=training)
    kill_a_run(tmp_path, "--parties-apart", text=text, moment=checkpoints)
    begun = checkpoints(tmp_path / "runs")
    kept = {path.parent.name: torch.load(path)["epoch"] for path in begun}
    assert kept
    played: dict[str, list[int]] = {}
    submit = LocalEngine.submit

    def noting(engine: LocalEngine, need: Need, function: Any, *arguments: Any) -> Any:
        if function is play_turn:
            played.setdefault(arguments[1], []).append(arguments[2])
        return submit(engine, need, function, *arguments)

    monkeypatch.setattr(LocalEngine, "submit", noting)
    resume(tmp_path, "--parties-apart", text=text)
    originals = [cell for cell in make_plan(resolve(tmp_path / "small.toml")).cells if cell.reference is not None]
    for cell in originals:
        assert cell.reference is not None
        first = kept.get(f"{cell.reference.id}.partial", 0)
        assert sorted(set(played.get(cell.id, []))) == list(range(first, 12))


def test_a_training_that_fails_apart_is_a_failed_cell_with_its_reason(tmp_path: Path) -> None:
    training = TRAINING.replace("learning_rate = 0.1", "learning_rate = 1e30")
    assert training != TRAINING
    text = federated_text(WD, head="seeds = [0]", federation=THREE, training=training)
    manifest = write_manifest(tmp_path, text, "together.toml")
    done = cli("run", manifest, "-o", tmp_path / "runs", "--device", "cpu", "--parties-apart")
    assert done.code == 1
    reasons = {label: record.reason or "" for label, record in records(tmp_path / "runs").items()}
    for label, name in (("original", "Original"), ("fdr", "FDR"), ("wd", "Original")):
        assert reasons[label].startswith(f"{name} of seed 0 failed: the loss is not finite (nan) in epoch "), reasons


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--on", "slurm", "--detach"),
            "--detach: the rounds of --parties-apart are led from here\n  Leave one of them out\n",
        ),
    ],
)
def test_what_parties_apart_cannot_be_combined_with_is_said(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    manifest = write_manifest(tmp_path, federated_text(WD, federation=THREE), "together.toml")
    done = cli("run", manifest, "-o", tmp_path / "runs", "--parties-apart", *arguments)
    assert (done.code, done.out, done.err) == (2, "", message)
