"""`submit`, `leaderboard check` and `reproduce`, on a real run."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FinishedRun
from support.commands import cli
from support.records import make_record, record_files, small_board, with_changes, write_records

from unlearnbench.documents import compressed, read_text
from unlearnbench.errors import InvalidFileError, UnlearnBenchError
from unlearnbench.metrics.metric_record import packed
from unlearnbench.results.leaderboard.build import build_leaderboard
from unlearnbench.results.leaderboard.rerun import read_row
from unlearnbench.results.leaderboard.submission import read_submission, write_submission
from unlearnbench.results.leaderboard.verify import verify
from unlearnbench.results.records.collection import read_collection
from unlearnbench.results.records.files import read_record
from unlearnbench.results.records.record import content_hash

pytestmark = pytest.mark.slow

Values = dict[str, Any]


@pytest.fixture
def board(finished: FinishedRun, tmp_path: Path) -> Path:
    """Build a leaderboard of the finished run."""
    done = cli("leaderboard", "build", finished.output, "-o", tmp_path / "board")
    assert done.code == 0, done.err
    return one_file_each(tmp_path / "board")


def one_file_each(board: Path) -> Path:
    """Write each record of a leaderboard to a file of its own, which a test can change; both forms are valid."""
    (collection,) = (board / "records").glob("*.jsonl.xz")
    write_records(board, [entry.record for entry in read_collection(collection)])
    collection.unlink()
    return board


@pytest.fixture
def submission(finished: FinishedRun, tmp_path: Path) -> Path:
    """Write a submission of one unlearner of the finished run."""
    write_submission(finished.output, tmp_path / "submission", ("erwp",))
    return tmp_path / "submission"


def rewrite(path: Path, edit: Callable[[Values], None], *, new_hash: bool) -> None:
    values = json.loads(path.read_text())
    edit(values)
    if new_hash:
        values["hash"] = content_hash(values)
    path.write_text(json.dumps(values))


def record_of(folder: Path, name: str) -> Path:
    return record_files(folder)[name]


def value(values: Values) -> None:
    values["metrics"]["forget_accuracy"]["value"] = 0.0123


def hits_and_value(values: Values) -> None:
    metric = values["metrics"]["forget_accuracy"]
    metric["hits"] = packed(np.zeros(metric["hits"]["images"], dtype=np.bool_)).model_dump()
    metric["value"] = 0.0


def option(values: Values) -> None:
    values["method"]["options"]["epochs"] = 99


def label(values: Values) -> None:
    values["method"]["label"] = "ours"


def seed(values: Values) -> None:
    values["seed"] = 7


def seconds(values: Values) -> None:
    values["measured"]["seconds"]["unlearn"] = 0.001


def epochs(values: Values) -> None:
    values["problem"]["training"]["epochs"] = 300


def dataset(values: Values) -> None:
    values["manifest"]["dataset"]["name"] = "cifar100"


def test_a_good_leaderboard_has_no_fault(board: Path, finished: FinishedRun) -> None:
    done = cli("leaderboard", "check", board)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{board}: 10 records, features not given, no fault\n"
    verdict = verify(board, (finished.output,))
    assert verdict.faults == ()
    assert verdict.recomputed > 10 * 3


@pytest.mark.parametrize("edit", [value, option, label, seed, epochs, seconds])
def test_an_edited_record_is_refused(board: Path, edit: Callable[[Values], None]) -> None:
    path = record_of(board, "erwp/seed-0.json")
    told = read_record(path).hash[:16]
    rewrite(path, edit, new_hash=False)
    done = cli("leaderboard", "check", board)
    assert done.code == 1
    assert done.err == (
        f"{path}: the content was changed after the run: its hash is not {told}...\n"
        "  Put the run's own record back, or run the manifest again, which writes it anew\n"
    )
    assert done.out == f"{board}: 0 records, features not given, 1 faults\n"


def write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_bytes(compressed("".join(f"{line}\n" for line in lines)))


def test_an_edited_line_is_refused_with_its_number(finished: FinishedRun, tmp_path: Path) -> None:
    board = tmp_path / "board"
    assert cli("leaderboard", "build", finished.output, "-o", board).code == 0
    (path,) = (board / "records").glob("*.jsonl.xz")
    lines = read_text(path).splitlines()
    values = json.loads(lines[4])
    values["measured"]["seconds"]["unlearn"] = 0.001
    write_lines(path, [*lines[:4], json.dumps(values), *lines[5:]])
    assert verify(board).faults == (
        f"{path}:5: the content was changed after the run: its hash is not {values['hash'][:16]}...\n"
        "  Put the file back as it was published",
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: ["[]", *lines[1:]], "does not fit the first line (TypeError: "),
        (lambda lines: [lines[0], '{"manifest": 7}'], "does not fit the first line (IndexError: "),
        (lambda lines: [lines[0], "{"], "not lines of JSON: "),
    ],
)
def test_a_file_that_is_no_collection_is_refused(
    finished: FinishedRun, tmp_path: Path, damage: Callable[[list[str]], list[str]], message: str
) -> None:
    board = tmp_path / "board"
    assert cli("leaderboard", "build", finished.output, "-o", board).code == 0
    (path,) = (board / "records").glob("*.jsonl.xz")
    write_lines(path, damage(read_text(path).splitlines()))
    done = cli("leaderboard", "check", board)
    assert done.code == 1
    assert message in done.err


def fault_of(path: Path, faults: tuple[str, ...]) -> list[str]:
    """Return what is said about a record itself."""
    return [fault.removeprefix(f"{path}: ") for fault in faults if fault.startswith(f"{path}: ")]


def hits_cut(values: Values) -> None:
    hits = values["metrics"]["forget_accuracy"]["hits"]
    hits["bits"] = hits["bits"][:-3]


@pytest.mark.parametrize(
    "command",
    [
        ["leaderboard", "check"],
        ["leaderboard", "build", "-o", "new"],
        ["table"],
        ["compare", "{board}"],
        ["export", "--to", "csv"],
        ["submit", "-o", "new"],
        ["report", "-o", "new"],
    ],
)
def test_every_command_refuses_a_damaged_record_with_its_field(board: Path, command: list[str]) -> None:
    path = record_of(board, "erwp/seed-0.json")
    rewrite(path, hits_cut, new_hash=True)
    length = len(json.loads(path.read_text())["metrics"]["forget_accuracy"]["hits"]["bits"])
    done = cli(*(word.format(board=board) for word in command), board)
    assert done.code == 1
    assert done.err == (
        f"{path}: metrics.forget_accuracy.hits.bits: its {length} characters are not base64\n"
        "  Run the manifest again, which writes it anew\n"
    )


def test_an_edited_value_is_found_though_its_hash_was_made_anew(board: Path) -> None:
    path = record_of(board, "erwp/seed-0.json")
    forget = read_record(path).value("forget_accuracy")
    rewrite(path, value, new_hash=True)
    faults = fault_of(path, verify(board).faults)
    assert faults == [f"metrics.forget_accuracy.value: 0.0123, but its test images give {forget!r}"]


def test_forged_images_are_found_by_the_features(board: Path, finished: FinishedRun) -> None:
    path = record_of(board, "original/seed-0.json")
    forget = read_record(path).value("forget_accuracy")
    rewrite(path, hits_and_value, new_hash=True)
    assert fault_of(path, verify(board).faults) == []
    faults = fault_of(path, verify(board, (finished.output,)).faults)
    assert faults == [f"metrics.forget_accuracy.value: 0.0, but its features give {forget!r}"]


def forget_classes(values: Values) -> None:
    values["manifest"]["problem"]["forget_classes"] = ["8", "7"]


def forget_last(values: Values) -> None:
    values["manifest"]["problem"].update(forget_classes=None, forget_last=3)


def limited(values: Values) -> None:
    values["manifest"]["problem"].update(limited_share=None, limited_images_per_class=1)


def more_epochs(values: Values) -> None:
    values["manifest"]["training"]["epochs"] = 300


def other_seeds(values: Values) -> None:
    values["manifest"]["seeds"] = [1]


def other_methods(values: Values) -> None:
    values["manifest"]["unlearners"] = []


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (dataset, "problem.dataset: 'digits', but the manifest in the record has 'cifar100'"),
        (forget_classes, "problem.forget_classes: [8, 9], but the manifest in the record has ['8', '7']"),
        (forget_last, "problem.forget_classes: [8, 9], but the manifest in the record has the last 3"),
        (limited, "problem.limited: '10 %', but the manifest in the record has '1 image'"),
        (more_epochs, "problem.training.epochs: 3, but the manifest in the record has 300"),
        (other_seeds, "seed: 0 is not among the seeds of the manifest in the record"),
        (other_methods, "method.name: 'wd' is not among the unlearners of the manifest in the record"),
    ],
)
def test_a_record_that_is_not_its_manifests_is_found(board: Path, edit: Callable[[Values], None], text: str) -> None:
    path = record_of(board, "wd/seed-0.json")
    rewrite(path, edit, new_hash=True)
    assert fault_of(path, verify(board).faults) == [text]


def test_a_missing_seed_is_found(board: Path) -> None:
    path = record_of(board, "erwp/seed-1.json")
    path.unlink()
    faults = verify(board).faults
    assert faults[0] == (
        f"{path.parent}: erwp lacks seed 1 of the manifest short\n  The same run command goes on where it stopped"
    )


def test_a_page_that_was_edited_is_found(board: Path) -> None:
    page = board / "README.md"
    page.write_text(page.read_text().replace("erwp", "ours"))
    assert verify(board).faults == (
        f"{page}: not what the records give\n  unlearnbench leaderboard build {board} -o {board}",
    )


def test_a_page_that_no_record_gives_is_found_and_one_of_a_person_left_alone(board: Path) -> None:
    (page,) = board.glob("digits-*.md")
    shutil.copy(page, board / "cifar100-resnet20.md")
    (board / "notes.md").write_bytes(b"\xff")
    mend = f"  unlearnbench leaderboard build {board} -o {board}"
    # The overview links what a person wrote.
    assert verify(board).faults == (
        f"{board}/README.md: not what the records give\n{mend}",
        f"{board}/cifar100-resnet20.md: the records give no such file\n{mend}",
    )
    assert cli("leaderboard", "build", board, "-o", board).code == 0
    assert verify(board).faults == ()
    assert sorted(path.name for path in board.glob("*.md")) == [
        "README.md",
        "REPORTED.md",
        "SUMMARY.md",
        page.name,
        "notes.md",
    ]


def test_features_that_are_not_there_are_named(board: Path, tmp_path: Path) -> None:
    path = record_of(board, "erwp/seed-0.json")
    file = read_record(path).files["features"].path
    faults = fault_of(path, verify(board, (tmp_path,)).faults)
    assert faults == [f"files.features: {file} is in none of the folders given with --features"]


def test_features_that_were_changed_are_named(board: Path, finished: FinishedRun, tmp_path: Path) -> None:
    path = record_of(board, "erwp/seed-0.json")
    file = read_record(path).files["features"].path
    shutil.copytree(finished.output, tmp_path / "runs")
    with (tmp_path / "runs" / file).open("ab") as stream:
        stream.write(b"x")
    assert fault_of(path, verify(board, (tmp_path / "runs",)).faults) == [
        f"files.features: {tmp_path}/runs/{file}: its content is not what the record was made from; "
        "run the manifest again"
    ]


def test_a_submission_of_records_without_features_is_told_to_be_beyond_checking(
    finished: FinishedRun, tmp_path: Path
) -> None:
    shutil.copytree(finished.output / "records", tmp_path / "bare" / "records")
    done = cli("submit", tmp_path / "bare", "-o", tmp_path / "made")
    assert done.code == 0, done.err
    records = len(record_files(tmp_path / "bare"))
    assert done.err.startswith(f"{records} feature files are not in {tmp_path / 'bare'} any more")
    assert cli("submit", finished.output, "-o", tmp_path / "whole").err == ""


def test_a_folder_of_features_that_is_not_there_is_named_once(board: Path, tmp_path: Path) -> None:
    done = cli("leaderboard", "check", board, "--features", tmp_path / "nowhere")
    assert (done.code, done.err) == (2, f"--features {tmp_path / 'nowhere'}: no such folder\n")


def test_a_submission_holds_what_others_need(submission: Path, finished: FinishedRun) -> None:
    told = read_submission(submission / "submission.json")
    assert told.methods == {"erwp": "erwp of unlearnbench 0.1.0"}
    assert len(told.records) == 6
    # No index has the benchmark itself, so that its own checkout is installed.
    assert told.rerun == [
        "pip install -e UNLEARNBENCH",
        "unlearnbench run short.toml -o runs",
        "unlearnbench compare . runs",
    ]
    assert "where UNLEARNBENCH is a checkout of the benchmark's repository" in (submission / "README.md").read_text()
    for place, digest in told.features.items():
        assert read_record(submission / place).files["features"].sha256 == digest
    assert str(finished.output) not in "".join(path.read_text() for path in submission.rglob("*.*"))
    assert cli("validate", submission / "short.toml").code == 0
    assert verify(submission).faults == ()
    assert verify(submission, (finished.output,)).faults == ()


def test_a_submission_becomes_part_of_a_leaderboard(submission: Path, board: Path, finished: FinishedRun) -> None:
    shutil.rmtree(board / "records" / "short" / next((board / "records" / "short").iterdir()).name / "erwp")
    shutil.copytree(submission, board / "submissions" / "me")
    assert verify(board / "submissions" / "me").faults == ()
    done = cli("leaderboard", "build", board, "-o", board)
    assert done.code == 0, done.err
    assert verify(board, (finished.output,)).faults == ()
    (page,) = board.glob("digits-*.md")
    assert "](submissions/me/records/" in page.read_text()


def problem_changed(values: Values) -> None:
    values["problem"]["id"] = "0" * 16
    values["problem"]["limited_counts"] = [15] * 10


def test_a_submission_on_an_unknown_problem_is_told_the_nearest(submission: Path, board: Path) -> None:
    paths = record_files(submission).values()
    slug = read_record(next(iter(paths))).problem.slug
    for path in paths:
        rewrite(path, problem_changed, new_hash=True)
    done = cli("leaderboard", "check", submission, "--against", board)
    assert done.code == 1
    (submission / "submission.json").unlink()
    (fault,) = verify(submission, known=board).faults
    assert fault == (
        f"{record_of(submission, 'erwp/seed-0.json')}: problem.id: {'0' * 16} is not on {board}\n"
        f"  The nearest problem there is {slug}; it differs in "
        f"limited_counts: {(15,) * 10!r} here, {(14,) * 10!r} there"
    )


def fewer_seeds(values: Values) -> None:
    values["manifest"]["seeds"] = [0]


def test_a_submission_must_have_the_leaderboards_seeds(submission: Path, board: Path) -> None:
    (submission / "submission.json").unlink()
    for name, path in record_files(submission).items():
        if name.endswith("seed-1.json"):
            path.unlink()
        else:
            rewrite(path, fewer_seeds, new_hash=True)
    slug = read_record(record_of(submission, "erwp/seed-0.json")).problem.slug
    assert verify(submission, known=board).faults == tuple(
        f"{submission}: {name} lacks seed 1, which {board} has for {slug}" for name in ("erwp", "fdr", "original")
    )


def test_a_submission_that_was_changed_is_refused(submission: Path) -> None:
    told = submission / "submission.json"
    first, second = (record_of(submission, f"erwp/seed-{number}.json") for number in (0, 1))
    rewrite(first, label, new_hash=True)
    second.rename(second.with_name("seed-9.json"))
    place = first.parent.relative_to(submission)
    assert verify(submission).faults == (
        f"{told}: records.{place}/seed-0.json: the file's hash is another; it was changed after `submit`",
        f"{told}: records.{place}/seed-1.json: no such file",
        f"{told}: records: {place}/seed-9.json is not among them",
    )


def test_a_submission_of_another_form_is_refused(submission: Path) -> None:
    told = submission / "submission.json"
    told.write_text('{"records": 3}')
    assert verify(submission).faults == (f"{told}: methods: field required",)


def test_a_submission_goes_to_a_folder_of_its_own(submission: Path, finished: FinishedRun) -> None:
    with pytest.raises(UnlearnBenchError) as caught:
        write_submission(finished.output, submission)
    assert str(caught.value) == f"{submission}: not empty; choose another folder with --output"


def test_a_method_that_is_not_there_cannot_be_submitted(finished: FinishedRun, tmp_path: Path) -> None:
    done = cli("submit", finished.output, "-o", tmp_path / "new", "--only", "erpw")
    assert (done.code, done.err) == (
        1,
        "--only erpw: the records hold no such method\n  Did you mean 'erwp'? Valid: erwp, folnrc, wd\n",
    )
    assert not (tmp_path / "new").exists()


def test_an_incomplete_run_cannot_be_submitted(finished: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(finished.output / "records", tmp_path / "records")
    record_of(tmp_path, "wd/seed-1.json").unlink()
    done = cli("submit", tmp_path, "-o", tmp_path / "new")
    assert done.code == 1
    assert "wd lacks seed 1 of the manifest short\n" in done.err


@pytest.fixture
def reproduced(board: Path, tmp_path: Path, finished: FinishedRun) -> Path:
    """Return an output folder that already has the references, so that a rerun trains only the unlearner."""
    shutil.copytree(finished.output / "store", tmp_path / "again" / "store")
    return tmp_path / "again"


def test_a_row_is_run_again_and_compared(board: Path, reproduced: Path) -> None:
    row = record_of(board, "erwp/seed-0.json").parent
    shutil.rmtree(reproduced / "store" / "relevance", ignore_errors=True)
    done = cli("reproduce", row, "-o", reproduced, "--device", "cpu", "--json")
    assert done.code == 0, done.err
    (found,) = done.json
    assert (found["first"], found["second"], found["seeds"]) == ("erwp", "erwp", [0, 1])
    for metric in found["metrics"].values():
        assert (metric["difference"], metric["interval"], metric["equal_seeds"]) == (0.0, [0.0, 0.0], 2)


def test_one_record_is_a_row_of_one_seed(board: Path) -> None:
    row = read_row(record_of(board, "folnrc/seed-1.json"))
    assert tomllib.loads(row.manifest())["seeds"] == [1]
    assert row.label == "folnrc"


def test_several_rows_are_not_run_again_at_once(board: Path) -> None:
    folder = record_of(board, "erwp/seed-0.json").parent.parent
    with pytest.raises(InvalidFileError) as caught:
        read_row(folder)
    assert str(caught.value) == (
        f"{folder}: holds 5 rows, erwp, fdr, folnrc, original, wd; one can be run again at a time\n"
        "  Say which: --only LABEL"
    )


def test_a_row_of_several_manifests_is_run_again_from_one(tmp_path: Path) -> None:
    good = [make_record("good", seed) for seed in (0, 1)]
    of = {
        "a-narrow": [with_changes(good[0], manifest={"unlearners": [{"name": "good"}]})],
        "broad": [
            with_changes(record, manifest={"unlearners": [{"name": "good"}, {"name": "weak"}]}) for record in good
        ],
        "small": good,
    }
    named = [with_changes(record, manifest_name=name) for name, records in of.items() for record in records]
    references = [make_record(name, seed) for name in ("original", "fdr") for seed in (0, 1)]
    runs = write_records(tmp_path / "runs", [*references, *named])
    extra = [with_changes(record, manifest_name="beside", manifest={}) for record in (*references, *good)]
    build_leaderboard([runs], tmp_path / "board", beside=[write_records(tmp_path / "beside", extra)])
    row = read_row(tmp_path / "board" / "records" / "problem.jsonl.xz", "good")
    assert [(record.manifest_name, record.seed) for record in row.records] == [("small", 0), ("small", 1)]


def test_a_row_of_a_name_that_is_not_there_gets_the_nearest_one(board: Path) -> None:
    folder = record_of(board, "erwp/seed-0.json").parent.parent
    with pytest.raises(InvalidFileError, match=r"holds no row of 'erpw'\n  Did you mean 'erwp'\?"):
        read_row(folder, "erpw")


def test_a_row_of_other_data_is_not_run(board: Path, tmp_path: Path) -> None:
    path = record_of(board, "wd/seed-0.json")
    rewrite(path, problem_changed, new_hash=True)
    record = read_record(path)
    done = cli("reproduce", path, "-o", tmp_path / "new", "--device", "cpu")
    assert done.code == 1
    assert done.err == (
        f"{tmp_path}/new/short.toml: the problem of the record, {record.problem.slug}, is another one here, "
        f"{record.problem.slug}\n  Data set revision: {record.problem.dataset_revision} in the record, "
        f"{record.problem.dataset_revision} here\n  unlearnbench: 0.1.0 in the record\n"
    )


def test_check_reads_folders_of_records_too(tmp_path: Path) -> None:
    verdict = verify(write_records(tmp_path, small_board()))
    assert verdict.records == 14
    assert {fault.rpartition(": ")[2] for fault in verdict.faults} == {"it is empty"}
