"""Records that do not make up a table together."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.commands import cli
from support.records import make_record, small_board, with_changes, write_records

from unlearnbench.errors import InvalidFileError
from unlearnbench.results.leaderboard.build import build_leaderboard
from unlearnbench.results.leaderboard.submission import write_submission
from unlearnbench.results.ranking import rows_by_problem
from unlearnbench.results.records.faults import entry_faults
from unlearnbench.results.records.load import check_entries, load_entries, load_records, read_entries
from unlearnbench.results.records.record import Record, content_hash

PLACE = "records/small/problem"


def refusal(folder: Path, records: Iterable[Record]) -> str:
    """Return why records are refused, without the folder."""
    with pytest.raises(InvalidFileError) as caught:
        check_entries(read_entries([write_records(folder, records)]))
    return str(caught.value).replace(f"{folder}/", "")


def test_whole_records_are_accepted(tmp_path: Path) -> None:
    entries = read_entries([write_records(tmp_path, [*small_board("a"), *small_board("b")])])
    assert entry_faults(entries) == []
    assert len(entries) == 28
    assert entries[0].place == "small/a/absent/seed-0.json"


def test_records_of_another_schema_are_all_named(tmp_path: Path) -> None:
    write_records(tmp_path, small_board())
    for seed in (0, 1):
        path = tmp_path / PLACE / f"good/seed-{seed}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 7}))
    with pytest.raises(InvalidFileError) as caught:
        read_entries([tmp_path])
    assert str(caught.value).split("\n") == [
        f"{tmp_path}/{PLACE}/good/seed-{seed}.json: record schema 7, this version reads 2" for seed in (0, 1)
    ]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_refused(tmp_path: Path, number: float) -> None:
    write_records(tmp_path, small_board())
    path = tmp_path / PLACE / "good/seed-0.json"
    values = json.loads(path.read_text())
    values["metrics"]["forget_accuracy"]["value"] = number
    path.write_text(json.dumps(values | {"hash": content_hash(values)}))
    with pytest.raises(InvalidFileError) as caught:
        read_entries([tmp_path])
    text = f"metrics.forget_accuracy.value: {number} is not a number that a record can hold"
    assert str(caught.value) == f"{path}: {text}"


def test_a_share_above_one_is_refused(tmp_path: Path) -> None:
    records = [*small_board(), *(make_record("odd", seed, metrics=(1.5, 0.5, 0.9)) for seed in (0, 1))]
    assert refusal(tmp_path, records).split("\n") == [
        f"{PLACE}/odd/seed-{seed}.json: metrics.forget_accuracy.value: 1.5 is not a share between 0 and 1"
        for seed in (0, 1)
    ]


def test_a_done_metric_without_a_value_is_refused(tmp_path: Path) -> None:
    record = small_board()[4]
    metric = record.metrics["retain_accuracy"].model_copy(update={"value": None})
    changed = with_changes(record, metrics={**record.metrics, "retain_accuracy": metric})
    records = [other if other is not record else changed for other in small_board()]
    records[4] = changed
    assert refusal(tmp_path, records) == (
        f"{PLACE}/good/seed-0.json: metrics.retain_accuracy.value: there is none, though the metric is done"
    )


def test_a_done_cell_without_its_metrics_is_refused(tmp_path: Path) -> None:
    records = small_board()
    records[4] = with_changes(records[4], metrics={})
    assert refusal(tmp_path, records) == (
        f"{PLACE}/good/seed-0.json: metrics: forget_accuracy, forget_prototype_accuracy, retain_accuracy missing, "
        "though the cell is done"
    )


def test_two_problems_under_one_id_are_refused(tmp_path: Path) -> None:
    records = small_board()
    records[4] = with_changes(records[4], problem=records[4].problem.model_copy(update={"test_images": 9}))
    assert refusal(tmp_path, records) == (
        f"{PLACE}/good/seed-0.json: problem.test_images: two problems are mixed under the id problem: 9 here, "
        f"445 in {PLACE}/absent/seed-0.json"
    )


def test_a_record_in_the_folder_of_another_problem_is_refused(tmp_path: Path) -> None:
    write_records(tmp_path, [*small_board("a"), *small_board("b")])
    (tmp_path / "records/small/a/good/seed-0.json").rename(tmp_path / "records/small/b/good/seed-9.json")
    with pytest.raises(InvalidFileError) as caught:
        check_entries(read_entries([tmp_path]))
    assert str(caught.value) == (
        f"{tmp_path}/records/small/b/good/seed-9.json: problem.slug: the record is of a, its folder of b"
    )


def test_a_record_that_is_there_twice_with_other_results_is_refused(tmp_path: Path) -> None:
    again = with_changes(make_record("good", 0, metrics=(0.2, 0.5, 0.9), options={"epochs": 3, "mode": "a|b"}))
    again = with_changes(again, manifest_name="zweit")
    assert refusal(tmp_path, [*small_board(), again]) == (
        "records/zweit/problem/good/seed-0.json: good with seed 0 is there twice, with other results in "
        f"{PLACE}/good/seed-0.json\n  Keep one of the two"
    )


def test_a_second_pair_of_a_seed_is_told_how_its_methods_come_in(tmp_path: Path) -> None:
    again = with_changes(make_record("original", 0, metrics=(0.7, 0.6, 0.8)), manifest_name="zweit")
    told = refusal(tmp_path, [*small_board(), again])
    assert told.endswith("as a submission, which is judged by its own: unlearnbench submit")


def test_two_manifests_may_share_a_cell(tmp_path: Path) -> None:
    shared = [with_changes(record, manifest_name="zweit") for record in small_board()]
    entries = read_entries([write_records(tmp_path, [*small_board(), *shared])])
    assert entry_faults(entries) == []


def test_missing_seeds_are_named(tmp_path: Path) -> None:
    records = [with_changes(record, manifest={"seeds": [0, 1, 2]}) for record in small_board()]
    records += [with_changes(make_record(name, 2), manifest={"seeds": [0, 1, 2]}) for name in ("original", "fdr")]
    records = [record for record in records if record.method.role == "reference" or record.method.label == "good"]
    assert refusal(tmp_path, records) == (
        f"{PLACE}/good: good lacks seed 2 of the manifest small\n  The same run command goes on where it stopped"
    )


@pytest.mark.parametrize(("name", "shown"), [("original", "Original"), ("fdr", "FDR")])
def test_missing_references_are_named(tmp_path: Path, name: str, shown: str) -> None:
    records = [record for record in small_board() if record.method.name != name]
    assert refusal(tmp_path, records) == (
        f"problem: no record of {shown} with seed 0, 1\n"
        "  Its methods cannot be judged; add the records of the references"
    )


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    records = [record for record in small_board() if record.method.name != "fdr"]
    records[2] = with_changes(records[2], metrics={})
    assert len(refusal(tmp_path, records).split("\n")) == 3


OTHERS = [make_record(name, seed, metrics=(0.1, 0.5, 0.88)) for name in ("original", "fdr") for seed in (0, 1)]
MINE = [make_record("mine", seed) for seed in (0, 1)]


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """Build a leaderboard with a submission whose references came out slightly different."""
    build_leaderboard([write_records(tmp_path / "runs", small_board())], tmp_path / "board")
    mine = write_records(tmp_path / "mine", [*OTHERS, *MINE])
    write_submission(mine, tmp_path / "board" / "submissions" / "me")
    return tmp_path / "board"


def left_out(board: Path) -> str:
    folder = board / "submissions" / "me" / "records"
    return (
        f"{folder}: Original and FDR with seed 0, 1 have no row, since the leaderboard has its own; "
        "they judge the methods of this submission"
    )


def test_references_of_a_submission_give_way_to_those_of_the_leaderboard(board: Path) -> None:
    said: list[str] = []
    every = read_entries([board])
    assert len(every) == 14 + 6
    kept = load_entries([board], said.append)
    assert [entry.record.method.label for entry in kept if entry.submission] == ["mine", "mine"]
    assert entry_faults(kept) == []
    assert said == [left_out(board)]
    assert load_records(board) == [entry.record for entry in kept]


def test_a_submission_is_judged_by_its_own_references_and_the_others_by_the_leaderboards(board: Path) -> None:
    """The board's Original has CAne 0.90 and its FDR FPAe 0.50 and 0.52; the submission's 0.88 and 0.5."""
    kept = {(entry.record.method.label, entry.record.seed): entry.record for entry in load_entries([board])}
    judged = {cell: [(one.method.name, one.seed) for one in record.judged_by] for cell, record in kept.items()}
    assert {cell: sorted(pair) for cell, pair in judged.items() if pair} == {
        ("mine", seed): [("fdr", seed), ("original", seed)] for seed in (0, 1)
    }
    (rows,) = rows_by_problem(kept.values())
    named = {row.label: row for row in rows}
    assert named["mine"].gaps(named["fdr"]) == pytest.approx({0: 0.0, 1: 0.0})
    assert named["good"].gaps(named["fdr"]) == pytest.approx({0: 0.05, 1: 0.04})
    # Neither its hash nor its content says by what it is judged.
    assert kept["mine", 0].model_dump() == MINE[0].model_dump()


def test_of_a_submission_in_one_file_only_the_references_give_way(board: Path, tmp_path: Path) -> None:
    records = board / "submissions" / "me" / "records"
    build_leaderboard([tmp_path / "mine"], tmp_path / "lines")
    shutil.rmtree(records)
    shutil.copytree(tmp_path / "lines" / "records", records)
    kept = load_entries([board])
    assert [entry.record.method.label for entry in kept if entry.submission] == ["mine", "mine"]


def test_a_submission_by_itself_keeps_its_references(board: Path) -> None:
    said: list[str] = []
    assert len(load_records(board / "submissions" / "me", said.append)) == 6
    assert said == []


def test_seeds_that_the_leaderboard_has_not_are_not_left_out(tmp_path: Path) -> None:
    write_records(tmp_path, [record for record in small_board() if record.seed == 0])
    write_records(tmp_path / "submissions" / "me", [*OTHERS, *MINE])
    said: list[str] = []
    kept = [entry.record for entry in load_entries([tmp_path], said.append) if entry.submission]
    assert [record.seed for record in kept if record.method.role == "reference"] == [1, 1]
    assert said == [left_out(tmp_path).replace("0, 1", "0")]


@pytest.mark.parametrize(
    "command",
    [
        ["table", "{board}"],
        ["table", "{board}", "--json"],
        ["report", "{board}", "-o", "{new}"],
        ["export", "{board}", "--to", "csv"],
        ["compare", "{board}", "{runs}", "--json"],
        ["leaderboard", "build", "{board}", "-o", "{new}"],
        ["submit", "{board}", "-o", "{new}"],
    ],
)
def test_every_command_takes_the_leaderboards_references_and_says_so(board: Path, command: list[str]) -> None:
    places = {"board": board, "runs": board.parent / "runs", "new": board.parent / "new"}
    done = cli(*(word.format(**places) for word in command))
    assert done.code == 0, done.err
    assert left_out(board) in done.err.splitlines()


def test_check_says_what_no_page_shows(board: Path) -> None:
    assert left_out(board) in cli("leaderboard", "check", board).err.splitlines()


def test_tables_show_a_submission_beside_the_leaderboards_references(board: Path) -> None:
    rows = {row["method"]: row for row in cli("table", board, "--json").json}
    assert rows["original"]["forget_accuracy"]["values"] == {"0": 0.9, "1": 0.92}
    assert (rows["mine"]["rank"], rows["mine"]["provisional"]) == (None, True)
    report = cli("report", board, "-o", board.parent / "report")
    assert "| mine | - | passed | - | 0.00 ± 0.00 |" in (board.parent / "report" / "README.md").read_text(), report.err
    exported = cli("export", board, "--to", "json").json
    assert {row["method"] for row in exported} == set(rows)


def test_a_comparison_is_with_the_leaderboards_references(board: Path) -> None:
    found = {row["first"]: row for row in cli("compare", board, board.parent / "runs", "--json").json}
    for name in ("original", "fdr"):
        assert found[name]["metrics"]["forget_accuracy"]["equal_seeds"] == 2


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError) as caught:
        read_entries([tmp_path])
    assert str(caught.value) == f"{tmp_path}: holds no run records\n  unlearnbench run MANIFEST -o {tmp_path}"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError) as caught:
        read_entries([tmp_path / "none"])
    assert str(caught.value) == f"{tmp_path}/none: no such folder"
