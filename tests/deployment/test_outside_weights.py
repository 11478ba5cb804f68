"""Weights that were unlearned elsewhere: scored beside the rest, marked, and refused where they do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import FinishedRun
from safetensors.torch import load_file, save_file
from support.commands import cli
from support.records import record_files

from unlearnbench.files import file_hash
from unlearnbench.models.classifier import OUTPUT_CLASSES
from unlearnbench.results.audit.consistency import inconsistencies
from unlearnbench.results.records.load import load_entries


@pytest.fixture(scope="module")
def home(finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy a finished run with trained references, and put weights beside it that were made elsewhere."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copytree(finished.output, folder / "runs")
    shutil.copyfile(finished.manifest, folder / "short.toml")
    for name in ("erwp", "wd"):
        made = json.loads(record_files(folder / "runs")[f"{name}/seed-1.json"].read_text())
        state = load_file(folder / "runs" / made["files"]["model"]["path"])
        state.pop(OUTPUT_CLASSES, None)
        save_file({f"module.{key}": value for key, value in state.items()}, folder / f"{name}.safetensors")
    return folder


def judge(home: Path, weights: str, *more: str) -> tuple[int, str, str]:
    done = cli(
        *("judge", home / weights, home / "short.toml", "-o", home / "runs", "--device", "cpu", "--seed", "1", *more)
    )
    return done.code, done.out, done.err


@pytest.fixture(scope="module")
def judged(home: Path) -> tuple[str, str]:
    code, out, err = judge(home, "erwp.safetensors", "--label", "theirs")
    assert code == 0, err
    return out, err


def record(home: Path, name: str) -> dict:
    return json.loads(record_files(home / "runs")[name].read_text())


def test_their_numbers_are_those_of_the_same_weights_made_here(home: Path, judged: tuple[str, str]) -> None:
    own, here = record(home, "theirs/seed-1.json"), record(home, "erwp/seed-1.json")
    for metric in here["metrics"]:
        if metric != "speed_up":
            assert own["metrics"][metric]["value"] == here["metrics"][metric]["value"], metric
    assert own["metrics"]["speed_up"]["reason"].endswith("how many images it read is not known")
    assert own["problem"] == here["problem"]


def test_record_table_and_json_say_that_the_method_was_not_run_here(home: Path, judged: tuple[str, str]) -> None:
    own = record(home, "theirs/seed-1.json")
    assert (own["method"]["name"], own["image_passes"]) == ("judged", {})
    assert own["details"]["checkpoint"]["sha256"] == file_hash(home / "erwp.safetensors")
    line = next(line for line in judged[0].splitlines() if "theirs (not run here)" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")][-3:] == ["-", "-", "1"]
    assert "theirs (not run here): method not run here: what it read is not known, so it has no rank" in judged[0]
    rows = {row["method"]: row for row in cli("table", home / "runs", "--json").json}
    assert (rows["theirs"]["rank"], rows["theirs"]["run_here"], rows["erwp"]["run_here"]) == (None, False, True)


def test_the_record_can_be_published_and_not_be_run_again(home: Path, judged: tuple[str, str], tmp_path: Path) -> None:
    entries = [entry.record for entry in load_entries([home / "runs"]) if entry.record.method.label == "theirs"]
    assert [list(inconsistencies(entry)) for entry in entries] == [[]]
    spoiled = entries[0].model_copy(update={"details": {}, "image_passes": {"forget": 3}})
    assert [fault.partition(":")[0] for fault in inconsistencies(spoiled)] == [
        "image_passes",
        "details.checkpoint.sha256",
    ]
    done = cli("reproduce", home / "runs" / "records", "--only", "theirs", "-o", tmp_path)
    assert done.err.splitlines()[0].endswith("only its weights were judged, so that nothing can be run again")
    done = cli("leaderboard", "build", home / "runs", "-o", tmp_path / "board")
    assert done.code == 0, done.err
    assert "theirs (not run here)" in next((tmp_path / "board").glob("digits-*.md")).read_text()
    assert "theirs (not run here)" in (tmp_path / "board" / "index.html").read_text()


def test_a_later_run_leaves_it_alone(home: Path, judged: tuple[str, str]) -> None:
    before = record(home, "theirs/seed-1.json")
    done = cli("run", home / "short.toml", "-o", home / "runs", "--device", "cpu")
    assert "not of" not in done.err
    assert record(home, "theirs/seed-1.json") == before


def test_fewer_outputs_need_their_classes(home: Path) -> None:
    code, _, err = judge(home, "wd.safetensors", "--label", "less")
    assert (code, err) == (
        1,
        f"{home / 'wd.safetensors'}: has 8 outputs, digits has 10 classes\n"
        "  Say the class of each output in their order: --class-order NAME,NAME,...\n",
    )
    code, _, err = judge(home, "wd.safetensors", "--label", "less", "--class-order", "0,1,2,3,4,5,6,7")
    assert code == 0, err
    own, here = record(home, "less/seed-1.json"), record(home, "wd/seed-1.json")
    assert own["metrics"]["retain_accuracy"]["value"] == here["metrics"]["retain_accuracy"]["value"]


def test_outputs_in_another_order_are_caught_and_can_be_named(home: Path) -> None:
    order = [3, 0, 1, 2, 9, 4, 5, 6, 7, 8]
    state = load_file(home / "erwp.safetensors")
    turned = {
        key: value[order].contiguous() if value.dim() and len(value) == len(order) else value
        for key, value in state.items()
    }
    assert any(not torch.equal(turned[key], state[key]) for key in state)
    save_file(turned, home / "turned.safetensors")
    code, _, err = judge(home, "turned.safetensors")
    assert code == 1
    assert "turned.safetensors: its outputs seem to stand in another order than is assumed" in err
    # The network is narrow, so that only what it knows well comes out where it belongs.
    seeming = err.splitlines()[-1].removeprefix("  --class-order ").split(",")
    assert len(seeming) == len(order)
    assert sum(one == str(label) for one, label in zip(seeming, order, strict=True)) >= 3
    code, _, err = judge(home, "turned.safetensors", "--class-order", ",".join(map(str, order)))
    assert code == 0, err
    own, here = record(home, "turned/seed-1.json"), record(home, "erwp/seed-1.json")
    assert own["metrics"]["forget_accuracy"]["value"] == here["metrics"]["forget_accuracy"]["value"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "ERWP"], "--label ERWP: {home}/short.toml has a method of this label\n  Give another --label\n"),
        (["--label", "fdr"], "--label fdr: {home}/short.toml has a method of this label\n  Give another --label\n"),
        (
            ["--label", "../x"],
            "--label ../x: not a label\n"
            "  At most 100 letters, digits, spaces and . _ = + , - that begin with a letter or a digit\n",
        ),
        (["--seed", "7"], "--seed 7: {home}/short.toml has no such seed\n  Its seeds: 0 | 1\n"),
        (["--class-order", "0,1,1"], "--class-order: class '1' is named twice\n"),
    ],
)
def test_what_cannot_be_asked_for_is_named(home: Path, arguments: list[str], message: str) -> None:
    code, _, err = judge(home, "erwp.safetensors", "--label", "other", *arguments)
    assert (code, err) == (2, message.format(home=home))


def test_files_that_do_not_fit_are_named(home: Path, tmp_path: Path) -> None:
    (home / "notes.pth").write_text("no weights")
    state = load_file(home / "erwp.safetensors")
    state.pop("module.0.weight")
    save_file(state, home / "lacking.safetensors")
    for name, message in {
        "nowhere.pth": "no such file",
        "notes.pth": "neither a safetensors file nor one that torch.save wrote",
        "lacking.safetensors": "does not fit Sequential",
    }.items():
        code, _, err = judge(home, name)
        assert (code, err.splitlines()[0]) == (2 if name == "nowhere.pth" else 1, f"{home / name}: {message}")
    done = cli("judge", home / "erwp.safetensors", home / "short.toml", "-o", tmp_path, "--label", "other")
    assert (done.code, done.err.splitlines()[-1]) == (2, "  Say which: --seed 0 | 1")
