"""Attestations: who ran a row again, and what a leaderboard then says of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import FinishedRun
from support.commands import cli
from support.records import make_record, record_files, small_board, with_changes, write_records

from unlearnbench.errors import InvalidFileError
from unlearnbench.files import write_json
from unlearnbench.results.audit.attestation import Attestation, attested, read_attestations, standing
from unlearnbench.results.leaderboard.build import build_leaderboard
from unlearnbench.results.leaderboard.verify import verify
from unlearnbench.results.records.record import Record

pytestmark = pytest.mark.slow

OTHER_MACHINE = ((0.01, 0.56, 0.89), (0.0, 0.57, 0.91))


def rerun(metrics: tuple[tuple[float, float, float], ...] = OTHER_MACHINE) -> list[Record]:
    """Return records of the method `good` of the small leaderboard, as another machine made them."""
    options = {"epochs": 3, "mode": "a|b"}
    return [make_record("good", seed, metrics=values, options=options) for seed, values in enumerate(metrics)]


def good() -> list[Record]:
    return [record for record in small_board() if record.method.label == "good"]


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """Build a small leaderboard."""
    build_leaderboard([write_records(tmp_path / "runs", small_board())], tmp_path / "board")
    return tmp_path / "board"


def publish(board: Path, attestation: Attestation) -> Path:
    """Put an attestation into a leaderboard and build its pages, and return the attestation's file."""
    path = board / "attestations" / attestation.file_name
    write_json(path, attestation.model_dump(mode="json"))
    build_leaderboard([board], board)
    return path


def said(board: Path) -> list[str]:
    """Return what a check says, apart from the empty manifests of the small leaderboard."""
    return [fault for fault in verify(board).faults if not fault.endswith("manifest: it is empty")]


def test_every_row_is_self_reported_until_somebody_ran_it(board: Path) -> None:
    page = (board / "digits-digits_net.md").read_text()
    assert page.count("made-up 1.0, self-reported |") == 7
    assert "None of these rows: each is what the one who ran it reports." in page
    assert (board / "index.html").read_text().count(", self-reported</span>") == 7
    readme = (board / "README.md").read_text()
    assert (
        "## How far to trust these rows\n\n`unlearnbench leaderboard check` computes every metric of features again"
        in readme
    )
    assert "It cannot find out how the networks were made" in readme


def test_a_row_that_was_run_again_is_verified_with_who_and_where(board: Path) -> None:
    made = attested(good(), rerun(), "A <b>reader</b>")
    publish(board, made)
    assert said(board) == []
    page = (board / "digits-digits_net.md").read_text()
    assert (page.count(", verified |"), page.count(", self-reported |")) == (1, 6)
    assert f"- good: verified by A &lt;b>reader&lt;/b> on a machine, {made.at}, seed 0, 1\n" in page
    web = (board / "index.html").read_text()
    assert (web.count(", verified</span>"), web.count("verified by A &lt;b&gt;reader&lt;/b&gt; on a machine")) == (1, 1)


def test_another_version_is_not_attested() -> None:
    newer = [
        with_changes(record, method=record.method.model_copy(update={"version": record.method.version + 1}))
        for record in rerun()
    ]
    with pytest.raises(InvalidFileError, match=r"^not attested: the row is of good 1 of .*, run was good 2 of "):
        attested(good(), newer, "me")


def test_another_result_is_not_attested() -> None:
    with pytest.raises(InvalidFileError) as caught:
        attested(good(), rerun(((0.0, 0.55, 0.80), (0.0, 0.56, 0.90))), "me")
    assert str(caught.value) == "not attested: CAne is 85.00 here and 90.00 in the record"
    with pytest.raises(InvalidFileError, match="not attested: no result for seed 1"):
        attested(good(), rerun()[:1], "me")


def test_a_row_is_verified_only_with_all_of_its_seeds() -> None:
    part = attested(good()[:1], rerun()[:1], "me")
    rest = attested(good()[1:], rerun()[1:], "you")
    assert standing(good(), [part]) == "self-reported"
    assert standing(good(), [part, rest]) == f"{part.text}; {rest.text}"
    assert standing(rerun(), [part, rest]) == "self-reported"
    assert standing([], [part]) == "self-reported"


def forged(board: Path, **changes: Any) -> Path:
    """Publish an attestation with changes, and return its file."""
    path = publish(board, attested(good(), rerun(), "me"))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_an_attestation_of_other_records_is_a_fault(board: Path) -> None:
    values = {"forget_accuracy": 0.0, "forget_prototype_accuracy": 0.5, "retain_accuracy": 0.9}
    path = forged(board, seeds=[{"seed": 0, "recorded": values, "found": values}])
    fault = f"{path}: seeds: the leaderboard has no record of good with seed 0 as told"
    assert fault in said(board)
    build_leaderboard([board], board)
    assert said(board) == [fault]
    assert ", verified |" not in (board / "digits-digits_net.md").read_text()


def test_an_attestation_that_does_not_agree_is_a_fault_and_verifies_nothing(board: Path) -> None:
    made = attested(good(), rerun(), "me").model_dump(mode="json")["seeds"]
    for seed in made:
        seed["found"]["retain_accuracy"] = 0.5
    path = forged(board, seeds=made)
    build_leaderboard([board], board)
    assert said(board) == [f"{path}: it does not agree: CAne is 50.00 here and 90.00 in the record"]
    assert ", verified |" not in (board / "digits-digits_net.md").read_text()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"by": ""}, "by: string should have at least 1 character"),
        ({"problem": "../x"}, "problem: string should match pattern '^[A-Za-z0-9_-][A-Za-z0-9._-]*$'"),
        ({"more": 1}, "more: extra inputs are not permitted"),
        ({"seeds": []}, "seeds: tuple should have at least 1 item after validation, not 0"),
    ],
)
def test_a_file_that_is_no_attestation_is_named(board: Path, changes: dict[str, Any], fault: str) -> None:
    path = forged(board, **changes)
    with pytest.raises(InvalidFileError) as caught:
        read_attestations(board)
    assert str(caught.value) == f"{path}: {fault}"
    done = cli("leaderboard", "check", board)
    assert done.code == 1
    assert f"{path}: {fault}\n" in done.err


def test_reproduce_writes_an_attestation_that_a_leaderboard_takes(finished: FinishedRun, tmp_path: Path) -> None:
    board, again = tmp_path / "board", tmp_path / "again"
    assert cli("leaderboard", "build", finished.output, "-o", board).code == 0
    shutil.copytree(finished.output / "store", again / "store")
    row = record_files(finished.output)["wd/seed-0.json"].parent
    done = cli("reproduce", row, "-o", again, "--device", "cpu", "--by", "a reader")
    assert done.code == 0, done.err
    (path,) = again.glob("wd-*.json")
    assert f"written: {path}\n" in done.err
    (board / "attestations").mkdir()
    shutil.copy(path, board / "attestations")
    assert cli("leaderboard", "build", board, "-o", board).code == 0
    assert cli("leaderboard", "check", board).out == f"{board}: 10 records, features not given, no fault\n"
    ((_, found),) = read_attestations(board)
    assert [seed.recorded == seed.found for seed in found.seeds] == [True, True]
