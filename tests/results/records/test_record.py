"""Records of runs."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import FinishedRun
from support.commands import cli
from support.records import comparable_records, make_record, record_files, small_board, with_changes, write_records

from unlearnbench.errors import InvalidFileError
from unlearnbench.files import file_hash
from unlearnbench.metrics.builtin.accuracy import forget_accuracy, retain_accuracy
from unlearnbench.metrics.builtin.prototype import forget_prototype_accuracy
from unlearnbench.metrics.features import open_features
from unlearnbench.results.records.files import read_record, write_record
from unlearnbench.results.records.load import load_records
from unlearnbench.results.records.problems import differences, distinct_titles
from unlearnbench.results.records.record import ProblemRecord, content_hash

AGAIN = "  Run the manifest again, which writes it anew"


@pytest.fixture
def path(finished: FinishedRun, tmp_path: Path) -> Path:
    """Return a copy of one record."""
    copy = tmp_path / "record.json"
    shutil.copy(record_files(finished.output)["erwp/seed-1.json"], copy)
    return copy


def refusal(path: Path) -> str:
    """Return the whole message about a record that cannot be used, without its path."""
    with pytest.raises(InvalidFileError) as caught:
        read_record(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_a_record_comes_back_as_it_was_written(path: Path, tmp_path: Path) -> None:
    record = read_record(path)
    write_record(record, tmp_path / "again.json")
    assert read_record(tmp_path / "again.json") == record
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.json") == "cannot be read: No such file or directory"


def test_a_truncated_record_is_named(path: Path) -> None:
    path.write_text(path.read_text()[:3000])
    first, mend = refusal(path).splitlines()
    assert first.startswith("not a whole JSON file: ")
    assert mend == AGAIN


def test_bytes_that_are_no_text_are_no_record(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")
    assert refusal(path) == "not UTF-8 text (byte 0)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not a run record\n  Move it out of {folder}"),
        ("{}", "not a run record\n  Move it out of {folder}"),
        ("3", "not a run record\n  Move it out of {folder}"),
        ('{"schema_version": 1}', "record schema 1, this version reads 2"),
        ('{"schema_version": "2"}', "record schema '2', this version reads 2"),
        ('{"schema_version": 2}', f"cell: field required\n{AGAIN}"),
    ],
)
def test_another_json_file_is_no_record(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    assert refusal(path) == message.format(folder=path.parent)


def _value(values: dict[str, Any]) -> None:
    values["metrics"]["forget_accuracy"]["value"] = 0.0123


def _seconds(values: dict[str, Any]) -> None:
    values["measured"]["seconds"]["unlearn"] = 0.001


def _label(values: dict[str, Any]) -> None:
    values["method"]["label"] = "ours"


@pytest.mark.parametrize("edit", [_value, _seconds, _label])
def test_a_record_edited_by_hand_is_refused(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))
    assert refusal(path) == f"the content was changed after the run: its hash is not {values['hash'][:16]}..."


def test_an_unknown_field_is_refused(path: Path) -> None:
    values = json.loads(path.read_text())
    values["extra"] = 1
    path.write_text(json.dumps({**values, "hash": content_hash(values)}))
    assert refusal(path) == f"extra: extra inputs are not permitted\n{AGAIN}"


def _cut(hits: dict[str, Any]) -> None:
    hits["bits"] = hits["bits"][:-3]


def _no_base64(hits: dict[str, Any]) -> None:
    hits["bits"] = f"!{hits['bits'][1:]}"


def _one_byte_less(hits: dict[str, Any]) -> None:
    hits["bits"] = base64.b64encode(base64.b64decode(hits["bits"])[:-1]).decode()


def _more_images(hits: dict[str, Any]) -> None:
    hits["images"] += 8


def _no_image(hits: dict[str, Any]) -> None:
    hits.update(images=0, bits="")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "bits: its {cut} characters are not base64"),
        (_no_base64, "bits: its {length} characters are not base64"),
        (_one_byte_less, "bits: {less} bytes, where {images} images need {bytes}"),
        (_more_images, "bits: {bytes} bytes, where {more_images} images need {more}"),
        (_no_image, "images: input should be greater than 0"),
    ],
)
def test_hits_that_are_not_one_bit_for_each_image_are_refused(
    path: Path, damage: Callable[[dict[str, Any]], None], message: str
) -> None:
    values = json.loads(path.read_text())
    hits = values["metrics"]["forget_accuracy"]["hits"]
    images = hits["images"]
    count, length = (images + 7) // 8, len(hits["bits"])
    damage(hits)
    path.write_text(json.dumps({**values, "hash": content_hash(values)}))
    numbers = {"images": images, "more_images": images + 8, "bytes": count, "less": count - 1, "more": count + 1}
    numbers |= {"length": length, "cut": length - 3}
    assert refusal(path) == f"metrics.forget_accuracy.hits.{message.format(**numbers)}\n{AGAIN}"


def test_the_form_of_the_json_does_not_matter(path: Path) -> None:
    record = read_record(path)
    values = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(values.items())), indent=7))
    assert read_record(path) == record


def test_a_folder_without_records_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError) as caught:
        load_records(tmp_path)
    assert str(caught.value) == f"{tmp_path}: holds no run records\n  unlearnbench run MANIFEST -o {tmp_path}"


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError) as caught:
        load_records(tmp_path / "nothere")
    assert str(caught.value) == f"{tmp_path}/nothere: no such folder"
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidFileError) as caught:
        load_records(tmp_path / "file")
    assert str(caught.value) == f"{tmp_path}/file: is not a folder"


def test_all_records_that_cannot_be_used_are_told_at_once(path: Path, tmp_path: Path) -> None:
    values = json.loads(path.read_text())
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "b.json").write_text(json.dumps({**values, "seed": 7}))
    with pytest.raises(InvalidFileError) as caught:
        load_records(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{tmp_path}/a.json: not a run record",
        f"  Move it out of {tmp_path}",
        f"{tmp_path}/b.json: the content was changed after the run: its hash is not {values['hash'][:16]}...",
        "  Put the run's own record back, or run the manifest again, which writes it anew",
    ]


def test_records_are_found_in_an_output_folder_and_in_any_other(finished: FinishedRun, tmp_path: Path) -> None:
    every = load_records(finished.output)
    assert len(every) == 10
    shutil.copytree(finished.output / "records", tmp_path / "deep" / "er")
    (tmp_path / ".hidden.json").write_text("{")
    assert load_records(tmp_path) == every


@pytest.mark.slow
def test_two_runs_of_one_manifest_differ_only_in_what_is_measured(finished: FinishedRun, tmp_path: Path) -> None:
    done = cli("run", finished.manifest, "-o", tmp_path / "again", "--device", "cpu")
    assert done.code == 0, done.err
    first, second = comparable_records(finished.output), comparable_records(tmp_path / "again")
    assert len(first) == 10
    assert first == second


def test_a_record_holds_what_its_run_rested_on(finished: FinishedRun, path: Path) -> None:
    record = read_record(path)
    assert (record.status, record.reason, record.seed, record.schema_version) == ("done", None, 1, 2)
    assert record.manifest["training"]["epochs"] == 3
    assert record.method.distribution == "unlearnbench"
    assert record.method.options["epochs"] == 2
    assert record.method.options["beta"] == 10.0
    assert record.problem.forget_classes == (8, 9)
    assert record.problem.forget_class_names == ("8", "9")
    assert record.problem.limited_counts == (14,) * 10
    assert set(record.details) == {"relevant_share", "searched_share", "kept"}
    assert 0 < record.details["relevant_share"] <= 1
    assert record.environment["libraries"]["torch"]
    assert record.environment["threads"] == 1
    assert set(record.measured.seconds) == {"unlearn", "features", "metrics"}
    for file in record.files.values():
        assert file_hash(finished.output / file.path) == file.sha256


@pytest.mark.parametrize(
    ("method", "forget", "retain"),
    [
        ("original", 3 * (131 + 135), 3 * (1352 - 266)),
        ("fdr", 0, 3 * (1352 - 266)),
        ("wd", 0, 0),
        ("folnrc", 0, 112),
    ],
)
def test_a_record_counts_the_images_that_a_method_read(
    finished: FinishedRun, method: str, forget: int, retain: int
) -> None:
    record = read_record(record_files(finished.output)[f"{method}/seed-0.json"])
    assert record.image_passes == {"forget": forget, "retain": retain}


def test_erwp_reads_its_epochs_and_its_search(finished: FinishedRun) -> None:
    reads = read_record(record_files(finished.output)["erwp/seed-0.json"]).image_passes
    assert reads["retain"] == 2 * 112
    # The images are read in 2 epochs and, for each of 2 classes, in the backward pass, the intact look and 2 to 5 looks
    # at each of 4 layers, where a look may end after its first 8 images.
    assert 2 * 28 + 28 * 2 + 2 * 8 * 4 * 2 <= reads["forget"] <= 2 * 28 + 28 * (2 + 4 * 5)


def test_metrics_of_a_record_can_be_computed_again_from_its_features(finished: FinishedRun) -> None:
    functions = (forget_accuracy, retain_accuracy, forget_prototype_accuracy)
    for path in record_files(finished.output).values():
        record = read_record(path)
        with open_features(finished.output / record.files["features"].path) as features:
            assert {function.__name__: function(features) for function in functions} == {
                function.__name__: record.value(function.__name__) for function in functions
            }


def problem(identity: str, **changes: object) -> ProblemRecord:
    return make_record("m", 0).problem.model_copy(update={"id": identity, "title": "digits", **changes})


def test_problems_of_one_title_say_what_they_differ_in() -> None:
    names = tuple("abcde")
    short, long = problem("1", training={"epochs": 2}), problem("2", training={"epochs": 9})
    other, alone = problem("3", training={"epochs": 2}, forget_class_names=names), problem("4", title="flowers")
    assert distinct_titles([short, long, other, alone]) == {
        "1": "digits; forget_class_names = nine, training.epochs = 2",
        "2": "digits; forget_class_names = nine, training.epochs = 9",
        "3": "digits; forget_class_names = a b c d ..., training.epochs = 2",
        "4": "flowers",
    }
    assert distinct_titles([short, alone])["1"] == "digits"


def test_problems_that_no_setting_tells_apart_show_their_ids() -> None:
    found = distinct_titles([problem("0123456789"), problem("abcdefghij")])
    assert found == {"0123456789": "digits; 012345", "abcdefghij": "digits; abcdef"}


def test_differences_are_named_with_both_values() -> None:
    one, other = problem("1", training={"epochs": 2}), problem("2", training={"epochs": 9}, start="a.pth")
    assert differences(one, other) == [("start", None, "a.pth"), ("training.epochs", 2, 9)]


def test_tables_of_two_problems_with_one_title_can_be_told_apart(tmp_path: Path) -> None:
    first = small_board()
    known = first[0].problem
    changes = {"title": known.title, "training": {**known.training, "epochs": 7}}
    second = [
        with_changes(record, problem=record.problem.model_copy(update=changes)) for record in small_board("second")
    ]
    lines = [line.rstrip() for line in cli("table", write_records(tmp_path, [*first, *second])).out.splitlines()]
    assert {f"{known.title}; training.epochs = 2", f"{known.title}; training.epochs = 7"} <= set(lines)


def test_a_setting_that_an_older_record_does_not_know_is_one_that_is_off() -> None:
    older = problem("1", training={"epochs": 2})
    assert differences(older, problem("2", training={"epochs": 2, "nesterov": False, "resolutions": []})) == []
    newer = problem("3", training={"epochs": 2, "nesterov": True})
    assert differences(older, newer) == [("training.nesterov", None, True)]
