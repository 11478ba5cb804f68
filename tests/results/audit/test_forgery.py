"""Forged records, on a real run: each is refused, with or without its features."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
from conftest import FinishedRun
from support.commands import cli
from support.plugins import fake_distribution
from support.records import make_record, record_files, small_board, with_changes, write_records

from unlearnbench.errors import InvalidFileError
from unlearnbench.files import file_hash
from unlearnbench.results.audit import consistency
from unlearnbench.results.audit.forgery import missing_seeds
from unlearnbench.results.leaderboard.build import build_leaderboard
from unlearnbench.results.leaderboard.verify import verify
from unlearnbench.results.records.files import read_record
from unlearnbench.results.records.load import read_entries
from unlearnbench.results.records.record import content_hash

pytestmark = pytest.mark.slow

Values = dict[str, Any]


@pytest.fixture
def runs(finished: FinishedRun, tmp_path: Path) -> Path:
    """Copy the finished run, whose records and features a test may forge."""
    shutil.copytree(finished.output, tmp_path / "runs")
    return tmp_path / "runs"


def rewrite(path: Path, edit: Callable[[Values], None]) -> None:
    """Change a record and give it the hash that it then has."""
    values = json.loads(path.read_text())
    edit(values)
    values["hash"] = content_hash(values)
    path.write_text(json.dumps(values))


def faults(runs: Path, record: str, *, features: bool = True) -> list[str]:
    """Return what a check of an output folder says of one of its records."""
    where = str(record_files(runs)[record])
    said = verify(runs, (runs,) if features else ()).faults
    return [fault.removeprefix(f"{where}: ") for fault in said if fault.startswith(f"{where}: ")]


def test_an_honest_run_has_no_fault(runs: Path) -> None:
    verdict = verify(runs, (runs,))
    assert (verdict.records, verdict.faults) == (10, ())


@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize("kind", ["features", "model"])
def test_a_record_without_its_files_is_refused(runs: Path, kind: str, features: bool) -> None:
    rewrite(record_files(runs)["erwp/seed-0.json"], lambda values: values["files"].pop(kind))
    found = faults(runs, "erwp/seed-0.json", features=features)
    assert f"files.{kind}: the record names no such file, though the cell is done" in found


def point_at(runs: Path, record: str, other: str, *kinds: str) -> None:
    """Let a record name another record's files, and take over its metrics."""
    theirs = json.loads(record_files(runs)[other].read_text())

    def edit(values: Values) -> None:
        values["metrics"] = theirs["metrics"]
        values["files"] |= {kind: theirs["files"][kind] for kind in kinds}

    rewrite(record_files(runs)[record], edit)


@pytest.mark.parametrize("kinds", [("features",), ("features", "model")])
def test_a_record_that_points_at_fdrs_features_is_refused(runs: Path, kinds: tuple[str, ...]) -> None:
    point_at(runs, "wd/seed-0.json", "fdr/seed-0.json", *kinds)
    (said,) = [fault for fault in faults(runs, "wd/seed-0.json", features=False) if fault.startswith("files.features")]
    fdr = record_files(runs)["fdr/seed-0.json"]
    assert said == f"files.features: the same as those of fdr with seed 0 in {fdr}"
    exchanged = any("its model_sha256 is" in fault for fault in faults(runs, "wd/seed-0.json"))
    assert exchanged == ("model" not in kinds)


def test_one_seed_copied_as_another_is_refused(runs: Path) -> None:
    point_at(runs, "wd/seed-1.json", "wd/seed-0.json", "features", "model")
    first = record_files(runs)["wd/seed-0.json"]
    found = faults(runs, "wd/seed-1.json")
    assert f"files.features: the same as those of wd with seed 0 in {first}" in found
    assert f"files.model: the same as those of wd with seed 0 in {first}" in found
    assert "files.features: its seed is 0, but the record has 1" in found


def test_a_copied_feature_file_with_other_attributes_is_refused(runs: Path) -> None:
    paths = record_files(runs)
    first, second = (read_record(paths[f"wd/seed-{seed}.json"]) for seed in (0, 1))
    forged = runs / second.files["features"].path
    shutil.copy(runs / first.files["features"].path, forged)
    with h5py.File(forged, "a") as file:
        file.attrs.update({"seed": 1, "model_sha256": second.files["model"].sha256})
    point_at(runs, "wd/seed-1.json", "wd/seed-0.json")
    rewrite(paths["wd/seed-1.json"], lambda values: values["files"]["features"].update(sha256=file_hash(forged)))
    found = faults(runs, "wd/seed-1.json")
    assert f"files.features: the same as those of wd with seed 0 in {paths['wd/seed-0.json']}" in found


def test_a_model_that_is_not_the_records_is_refused(runs: Path) -> None:
    path = runs / read_record(record_files(runs)["wd/seed-0.json"]).files["model"].path
    path.write_bytes(b"another")
    assert faults(runs, "wd/seed-0.json") == [f"files.model: {path}: its content is not what the record was made from"]


def option(values: Values) -> None:
    values["method"]["options"]["epochs"] = 99


def left_out_option(values: Values) -> None:
    values["method"]["options"]["learning_rate"] = 0.5


def other_label(values: Values) -> None:
    values["method"]["label"] = "ours"


def passes(values: Values) -> None:
    values["image_passes"] = {"forget": 0, "retain": 1}


def budget(values: Values) -> None:
    values["manifest"]["tuning"] = {"trials": 1, "seeds": [0], "held_out_share": 0.2, "not_searched": []}


def libraries(values: Values) -> None:
    values["environment"]["libraries"]["unlearnbench"] = "9.9"


@pytest.mark.parametrize(
    ("record", "edit", "text"),
    [
        ("folnrc/seed-0.json", option, "method.options.epochs: 99, but the manifest in the record has 1"),
        (
            "folnrc/seed-0.json",
            left_out_option,
            "method.options.learning_rate: 0.5, but the manifest in the record has 0.0001",
        ),
        (
            "folnrc/seed-0.json",
            other_label,
            "method.label: 'ours' is not the label of an entry of the manifest in the record",
        ),
        ("original/seed-0.json", option, "method.options: a reference has none"),
        ("original/seed-0.json", passes, "image_passes: 1, but 3 epochs of all training images are 4,056"),
        (
            "folnrc/seed-0.json",
            budget,
            "manifest.tuning.seeds: 0 is a seed of the manifest; options are searched on other seeds",
        ),
        (
            "folnrc/seed-0.json",
            libraries,
            "method.distribution_version: '0.1.0', but the libraries in the record have '9.9'",
        ),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(
    runs: Path, record: str, edit: Callable[[Values], None], text: str
) -> None:
    rewrite(record_files(runs)[record], edit)
    assert text in faults(runs, record, features=False)


def test_a_record_from_before_its_method_gained_an_option_is_no_forgery(runs: Path) -> None:
    def older(values: Values) -> None:
        del values["method"]["options"]["optimizer"]

    def without_what_was_given(values: Values) -> None:
        del values["method"]["options"]["epochs"]

    rewrite(record_files(runs)["folnrc/seed-0.json"], older)
    assert not any("method.options" in fault for fault in faults(runs, "folnrc/seed-0.json", features=False))
    rewrite(record_files(runs)["folnrc/seed-0.json"], without_what_was_given)
    wanted = "method.options.epochs: None, but the manifest in the record has 1"
    assert wanted in faults(runs, "folnrc/seed-0.json", features=False)


GROWN = """
from typing import Annotated
from unlearnbench.registry.declare import ADDED_LATER
def grown(model, task, *, epochs: int = 5, mix: Annotated[float, ADDED_LATER] = 0.5): return model
"""


@pytest.mark.parametrize("installed", [True, False])
def test_an_option_that_a_record_leaves_out_at_its_default_is_no_forgery(
    runs: Path, search_path: Path, installed: bool
) -> None:
    def given(mix: float) -> Callable[[Values], None]:
        def edit(values: Values) -> None:
            options = {"epochs": 3, "mix": mix}
            values["manifest"]["unlearners"] = [{"name": "grown", "label": "folnrc", "options": options}]
            values["method"].update(name="grown", version=1, options={"epochs": 3})

        return edit

    consistency._with_defaults.cache_clear()
    if installed:
        fake_distribution(search_path, "grown", {"unlearners": {"grown": "grown:grown"}}, {"grown": GROWN})
    record = record_files(runs)["folnrc/seed-0.json"]
    rewrite(record, given(0.5))
    assert not any("method.options" in fault for fault in faults(runs, "folnrc/seed-0.json", features=False))
    rewrite(record, given(0.75))
    found = [fault for fault in faults(runs, "folnrc/seed-0.json", features=False) if "method.options" in fault]
    wanted = "method.options.mix: None, but the manifest in the record has 0.75"
    assert found == ([wanted] if installed else [])


def test_changed_image_passes_do_not_fit_the_speed_up(runs: Path) -> None:
    rewrite(record_files(runs)["folnrc/seed-0.json"], passes)
    assert any(fault.startswith("metrics.speed_up.value: ") for fault in faults(runs, "folnrc/seed-0.json"))


def chosen(records: list[Any], seeds: tuple[int, ...]) -> list[Any]:
    """Return records of some seeds with a manifest of their own that asks for no others."""
    manifest = {"name": "mine", "seeds": list(seeds)}
    kept = [record for record in records if record.seed in seeds]
    return [with_changes(record, manifest_name="mine", manifest=manifest) for record in kept]


def test_bad_seeds_dropped_by_a_manifest_of_ones_own_are_asked_for(tmp_path: Path) -> None:
    board = small_board()
    good = [make_record("mine", seed, options={"epochs": 7}) for seed in (0, 1)]
    runs = write_records(tmp_path / "runs", [*board, *chosen(good, (1,))])
    (fault,) = missing_seeds(read_entries([runs]))
    assert fault == (
        f"{runs}/records/mine/problem/mine: mine lacks seed 0, which the leaderboard has for problem\n"
        "  Run these seeds too, or publish the row without a rank: leaderboard build --beside"
    )
    with pytest.raises(InvalidFileError, match="mine lacks seed 0"):
        build_leaderboard([runs], tmp_path / "board")
    # Without a rank it may stand there, and the page says so.
    plain, beside = write_records(tmp_path / "a", board), write_records(tmp_path / "b", chosen(good, (1,)))
    build_leaderboard([plain], tmp_path / "board", beside=[beside])
    assert not any("lacks seed" in fault for fault in verify(tmp_path / "board").faults)
    # Placed there by hand, it is found.
    write_records(tmp_path / "board", chosen(good, (1,)))
    assert any("mine lacks seed 0" in fault for fault in verify(tmp_path / "board").faults)


def test_a_submission_of_some_seeds_within_the_leaderboard_is_asked_for_the_others(
    finished: FinishedRun, tmp_path: Path
) -> None:
    board = tmp_path / "board"
    assert cli("leaderboard", "build", finished.output, "-o", board).code == 0
    part = tmp_path / "part"
    for name, path in record_files(finished.output).items():
        if name in ("erwp/seed-0.json", "original/seed-0.json", "fdr/seed-0.json"):
            target = part / path.relative_to(finished.output)
            target.parent.mkdir(parents=True)
            shutil.copy(path, target)
            rewrite(target, lambda values: values["manifest"].update(seeds=[0], name="mine"))
            rewrite(target, lambda values: values.update(manifest_name="mine"))
    shutil.copytree(finished.output / "store", part / "store")
    assert cli("submit", part, "-o", board / "submissions" / "me").code == 0
    said = verify(board, (finished.output,)).faults
    assert any("erwp lacks seed 1, which the leaderboard has for" in fault for fault in said)
