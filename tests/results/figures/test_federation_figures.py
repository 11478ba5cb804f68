"""Figures of a federation, from made-up records to the pictures and their numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support.records import make_record, with_changes, write_records

from unlearnbench.models.federation.federation import Rounds
from unlearnbench.results.records.record import Record

pytest.importorskip("matplotlib")

from unlearnbench.results.figures import federation
from unlearnbench.results.report.report import write_report

FEDERATION = {"parties": 2, "party": 1, "rounds": 3, "local_epochs": 1, "participation": 1.0, "split": "iid"}


def federated(method: str, seed: int) -> Record:
    record = make_record(method, seed)
    rounds = Rounds(
        images_per_class=((10,) * 10, (5,) * 9 + (seed,)),
        trained_in_round=((0, 1), (0,), (1,)),
        bytes_sent={"to_parties": 400, "from_parties": 400},
        accuracy_by_round=(0.25, 0.5, 0.75 + seed / 10) if method == "original" else (0.3, 0.6, 0.9),
    )
    problem = record.problem.model_copy(update={"federation": {**FEDERATION, "strategy": "fedavg"}})
    return with_changes(record, problem=problem, rounds=rounds, share=rounds.images_per_class[1])


def numbers(report: Path, ending: str) -> list[dict[str, str]]:
    (path,) = (report / "figures").glob(f"*-{ending}.csv")
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_rounds_and_shares_are_drawn_with_their_numbers(tmp_path: Path) -> None:
    runs = write_records(
        tmp_path / "runs", [federated(method, seed) for seed in (1, 2) for method in ("original", "fdr")]
    )
    written = write_report(runs, tmp_path / "report", figures=(federation.drawings,))
    assert written.not_drawn == ()
    rows = numbers(tmp_path / "report", "rounds")
    assert [(row["method"], row["seed"], row["round"], row["parties"], row["accuracy"]) for row in rows[:4]] == [
        ("Original", "1", "1", "2", "0.25"),
        ("Original", "1", "2", "1", "0.5"),
        ("Original", "1", "3", "1", "0.85"),
        ("Original", "2", "1", "2", "0.25"),
    ]
    assert len(rows) == 2 * 2 * 3
    shares = numbers(tmp_path / "report", "shares")
    assert len(shares) == 2 * 2 * 10
    last = shares[-1]
    assert (last["seed"], last["party"], last["class"], last["images"], last["unlearns"]) == (
        "2",
        "1",
        "9",
        "2",
        "True",
    )
    page = (tmp_path / "report" / "README.md").read_text()
    assert "Party 1, in the frame, unlearns with its own share." in page


def test_records_without_a_federation_have_no_such_figure(tmp_path: Path) -> None:
    runs = write_records(tmp_path / "runs", [make_record(label, 0) for label in ("original", "fdr")])
    write_report(runs, tmp_path / "report", figures=(federation.drawings,))
    assert not (tmp_path / "report" / "figures").exists()
