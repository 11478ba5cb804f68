"""The command line, in this process and in others."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import FinishedRun
from support.commands import Done, cli, python
from support.manifests import DATASET, FOLNRC, TRAINING, WD, manifest_text, missing_plugins, write_manifest
from support.paths import REPOSITORY
from support.plugins import built_in, fake_distribution
from support.records import comparable_records, record_files

from unlearnbench import __version__
from unlearnbench.engine.dry_run import MORE
from unlearnbench.errors import did_you_mean
from unlearnbench.machine import cores
from unlearnbench.mirror import ENTRY
from unlearnbench.registry.entry_points import KINDS, installed, names
from unlearnbench.results.records.files import read_record
from unlearnbench.results.records.load import load_records

# Cells of the digits run as many at a time as there are cores.
AT_A_TIME = f", {cores()} at a time" if cores() > 1 else ""


@pytest.fixture
def copied(finished: FinishedRun, tmp_path: Path) -> FinishedRun:
    """Return a copy of the finished run that a test may change."""
    shutil.copytree(finished.output, tmp_path / "runs")
    return FinishedRun(finished.manifest, tmp_path / "runs")


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys; import unlearnbench.frontends.cli; print('torch' in sys.modules, 'h5py' in sys.modules)"
    assert python("-c", code).out == "False False\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("run", "--help"),
        ("list", "unlearners"),
        ("leaderboard", "build", "{runs}", "-o", "{board}"),
        ("leaderboard", "check", "{runs}"),
        ("compare", "{runs}", "{runs}"),
        ("export", "{runs}", "--to", "json"),
        ("submit", "{runs}", "-o", "{board}"),
        ("table", "{runs}", "--json"),
        ("run", "{manifest}", "-o", "{runs}"),
        ("run", "{manifest}", "-o", "{runs}", "--dry-run"),
        ("validate", "{manifest}"),
    ],
)
def test_what_computes_nothing_does_without_torch(
    finished: FinishedRun, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    places = {"runs": finished.output, "manifest": finished.manifest, "board": tmp_path}
    given = [argument.format(**places) for argument in arguments]
    code = (
        "import sys\nfrom unlearnbench.frontends.cli import main\nsys.argv[0] = 'unlearnbench'\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    done = python("-c", code, *given)
    assert done.code == 0
    assert done.err.splitlines()[-1] == "False"


def test_help_names_every_command() -> None:
    done = cli("--help")
    assert done.code == 0
    for command in ("run", "validate", "list", "show", "table", "leaderboard", "doctor"):
        assert f" {command} " in done.out


def test_the_version_is_told_by_command_and_by_module() -> None:
    assert cli("--version").out == f"unlearnbench {__version__}\n"
    assert python("-m", "unlearnbench", "--version").out == f"unlearnbench {__version__}\n"


@pytest.mark.parametrize("arguments", [("nonsense",), ("list", "nonsense"), ("run",), ("run", "--nonsense", "a.toml")])
def test_wrong_usage_exits_with_2_and_says_nothing_on_stdout(arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Usage: " in done.err


@pytest.mark.parametrize("kind", KINDS)
def test_list_names_plugins_and_their_distributions(kind: str) -> None:
    lines = [line.split() for line in cli("list", kind).out.splitlines()]
    assert [line[0] for line in lines] == list(names(kind))
    own = built_in(kind)
    assert all(line[1:] == ["unlearnbench", __version__] for line in lines if line[0] in own)
    assert [plugin["name"] for plugin in cli("list", kind, "--json").json] == list(names(kind))


def test_list_marks_a_name_that_is_taken_twice(search_path: Path) -> None:
    fake_distribution(search_path, "other", {"datasets": {"digits": "other:f"}})
    lines = [line.split(maxsplit=2) for line in cli("list", "datasets").out.splitlines() if line.startswith("digits ")]
    assert lines == [
        ["digits", "other", "1.0  (name taken twice)"],
        ["digits", "unlearnbench", f"{__version__}  (name taken twice)"],
    ]


@pytest.mark.parametrize("name", [plugin.name for kind in KINDS for plugin in installed(kind)])
def test_show_has_a_page_for_every_built_in(name: str) -> None:
    done = cli("show", name)
    assert done.code == 0
    assert done.out.startswith(f"{name} (")
    assert "Source: " in done.out
    assert "\nArgs:" not in done.out
    (described,) = cli("show", name, "--json").json
    for option in described["options"]:
        assert f"  {option['name']} " in done.out
        assert option["meaning"], option["name"]


def test_show_of_a_method_with_groups_shows_them() -> None:
    out = cli("show", "erwp").out
    assert [line for line in out.splitlines() if line.startswith("Options")] == [
        "Options, relevance: which parameters may move",
        "Options, removal: how the relevant parameters move",
        "Options, distillation: what holds the retain classes",
    ]
    assert "  beta                 float, 10.0\n                       Weight of the distillation loss.\n" in out


def test_show_of_an_unknown_name_names_the_nearest() -> None:
    done = cli("show", "erpw")
    every = sorted({name for kind in KINDS for name in names(kind)})
    assert (done.code, done.out) == (2, "")
    # With plugins beside the built-in ones there can be more names than the message shows.
    assert done.err == f"nothing named 'erpw' is installed{did_you_mean('erpw', every)}\n"
    assert done.err.splitlines()[1].startswith(f"  Did you mean 'erwp'? Valid: {every[0]}, ")


def test_validate_says_what_a_manifest_amounts_to(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, manifest_text(head="seeds = [0, 1]"))
    assert cli("validate", path) == Done(0, f"{path}: valid: 1 problem, 3 methods, 2 seeds, 6 cells\n", "")


def test_validate_looks_at_every_manifest(tmp_path: Path) -> None:
    good = write_manifest(tmp_path, manifest_text(), "good.toml")
    bad = write_manifest(tmp_path, manifest_text(head="seeds = []"), "bad.toml")
    assert cli("validate", bad, good).code == 1
    done = cli("validate", bad, tmp_path / "none.toml", good)
    assert done.code == 2
    assert done.out == f"{good}: valid: 1 problem, 3 methods, 1 seed, 3 cells\n"
    assert done.err.splitlines() == [
        f"{bad}:1: seeds: [] is empty; it needs at least one value",
        f"{tmp_path}/none.toml: cannot be read: No such file or directory",
    ]


MANIFESTS = sorted((REPOSITORY / "manifests").glob("**/*.toml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_the_manifests_of_the_repository_are_valid(path: Path) -> None:
    missing = missing_plugins(path)
    if missing:
        plugins = "-e plugins/unlearnbench-zoo -e plugins/unlearnbench-lab -e '.[suite]'"
        pytest.skip(f"not installed: {missing} (pip install {plugins})")
    done = cli("validate", path)
    assert done.code == 0
    assert [line.partition(": ")[0] for line in done.out.splitlines()] == [str(path)]
    # A fresh machine has only the digits; for the others the message says what is missing and how to get it.
    named = {line.partition(":")[0] for line in done.err.splitlines() if line.startswith("/")}
    assert named == (set() if "digits" in path.stem or "mnist5k" in path.stem else {str(path)})


def test_a_plan_can_be_seen_before_its_data_are_fetched_but_not_run(tmp_path: Path) -> None:
    path = REPOSITORY / "manifests" / "cub200.toml"
    done = cli("run", path, "-o", tmp_path / "runs", "--dry-run", "--json")
    work = {row["what"]: row["image_passes"] for row in done.json[0]["work"]}
    # The work is 50 epochs and 5 seeds of all 5,994 training images, and 10 epochs of 3 images of each of 200 classes.
    assert (work["train Original"], work["unlearn with erwp"]) == (5 * 50 * 5994, 5 * 10 * 600)
    assert done.err.splitlines()[0].startswith(f"{path}:")
    assert " dataset.name: cub200 is not on this machine: " in done.err.splitlines()[0]
    refused = cli("run", path, "-o", tmp_path / "runs")
    assert (refused.code, refused.err) == (1, done.err)
    assert not (tmp_path / "runs").exists()


def test_a_faulty_manifest_is_not_run(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, manifest_text(head="seeds = []"))
    done = cli("run", path, "-o", tmp_path / "runs")
    assert done == Done(1, "", f"{path}:1: seeds: [] is empty; it needs at least one value\n")
    assert not (tmp_path / "runs").exists()


def test_a_run_ends_in_a_table_and_tells_where_things_are(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, manifest_text())
    output = tmp_path / ("long-" * 20) / "runs"
    done = cli("run", path, "-o", output, "--device", "cpu")
    assert done.code == 0
    assert done.out.startswith("digits / digits_net: forget 2 of 10 classes (8, 9), limited data 10 % per class")
    table = [line.split("│")[1:4] for line in done.out.splitlines() if line.startswith("│")]
    assert [(rank.strip(), method.strip()) for rank, method, _ in table][:2] == [("", "Original"), ("", "FDR")]
    lines = done.err.splitlines()
    assert lines[0] == f"small: 3 cells, 0 done before, on cpu{AT_A_TIME}"
    # Original and FDR may end in either order.
    assert [line.partition(": ")[0].partition("] ")[2] for line in sorted(lines[1:4], key=lambda line: line[5:])] == [
        "fdr, seed 0",
        "original, seed 0",
        "wd, seed 0",
    ]
    assert [line[:6] for line in lines[1:4]] == ["[1/3] ", "[2/3] ", "[3/3] "]
    assert lines[4:] == [f"records: {output}/records", f"models and features: {output}/store"]


def test_a_second_run_does_nothing(copied: FinishedRun) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.output.rglob("*") if path.is_file()}
    done = cli("run", copied.manifest, "-o", copied.output)
    assert done.code == 0
    assert done.err.splitlines()[0] == "short: all 10 cells are done already"
    assert {path: path.stat().st_mtime_ns for path in copied.output.rglob("*") if path.is_file()} == before
    assert done.out == cli("table", copied.output).out


@pytest.mark.slow
def test_a_manifest_may_get_more_seeds(copied: FinishedRun) -> None:
    fewer = copied.manifest.read_text()
    copied.manifest.write_text(fewer.replace("seeds = [0, 1]", "seeds = [0, 1, 2]"))
    done = cli("run", copied.manifest, "-o", copied.output, "--device", "cpu", "--json")
    assert done.err.splitlines()[0].startswith("short: 15 cells, 10 done before")
    assert sorted(row["method"] for row in done.json) == ["erwp", "fdr", "folnrc", "original", "wd"]
    assert all(row["seeds"] == [0, 1, 2] for row in done.json)
    assert {tuple(record.manifest["seeds"]) for record in load_records(copied.output)} == {(0, 1, 2)}
    # With fewer seeds again, finished cells stay and nothing has to be run.
    copied.manifest.write_text(fewer)
    assert cli("run", copied.manifest, "-o", copied.output).err.startswith("short: all 10 cells are done already")
    of_plan = [record for record in load_records(copied.output) if record.seed < 2]
    assert {tuple(record.manifest["seeds"]) for record in of_plan} == {(0, 1)}


def test_records_that_a_manifest_makes_no_more_are_named_with_the_run(copied: FinishedRun, tmp_path: Path) -> None:
    text = copied.manifest.read_text()
    fewer = tmp_path / copied.manifest.name
    fewer.write_text(text.replace("seeds = [0, 1]", "seeds = [0]"))
    assert fewer.read_text() != text
    done = cli("run", fewer, "-o", copied.output, "--device", "cpu")
    assert done.code == 0, done.err
    (told,) = [line for line in done.err.splitlines() if "not of" in line]
    assert told.endswith("seed-1.json, ...; remove what is not wanted")
    whole = cli("run", copied.manifest, "-o", copied.output, "--device", "cpu", "--only", "wd")
    assert "not of" not in whole.err


@pytest.mark.slow
def test_another_manifest_shares_what_is_in_the_store(copied: FinishedRun, tmp_path: Path) -> None:
    text = copied.manifest.read_text().replace("seeds = [0, 1]", "seeds = [1]")
    path = write_manifest(tmp_path, text.replace('name = "wd"', 'name = "wd"\nlabel = "other"'), "second.toml")
    works = cli("run", path, "-o", copied.output, "--dry-run", "--json").json[0]["work"]
    assert {work["what"]: (work["cached"], work["total"]) for work in works} == {
        "train Original": (1, 1),
        "train FDR": (1, 1),
        "unlearn with other": (1, 1),
        "unlearn with folnrc": (1, 1),
        "unlearn with erwp": (1, 1),
        "extract features": (5, 5),
        "metrics and record": (0, 5),
    }
    store = {path for path in (copied.output / "store").rglob("*") if path.is_file()}
    assert cli("run", path, "-o", copied.output, "--device", "cpu").code == 0
    assert {path for path in (copied.output / "store").rglob("*") if path.is_file()} == store


@pytest.mark.slow
def test_a_model_stays_that_of_the_machine_that_made_it(copied: FinishedRun) -> None:
    (record,) = [record for record in load_records(copied.output) if (record.method.name, record.seed) == ("wd", 0)]
    entry = copied.output / Path(record.files["model"].path).with_name(ENTRY)
    found = json.loads(entry.read_text())
    place = {"device": "another CPU", "precision": "bfloat16"}
    assert found["facts"]["environment"] == {key: record.environment[key] for key in place}
    found["facts"]["environment"] = place
    told = {key: value for key, value in found.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    entry.write_text(json.dumps({**told, "sha256": digest}))
    for path in (copied.output / "records").rglob("*.json"):
        path.unlink()
    assert cli("run", copied.manifest, "-o", copied.output, "--device", "cpu").code == 0
    for again in load_records(copied.output):
        same = (again.method.name, again.seed) != ("wd", 0)
        assert {key: again.environment[key] for key in place} == (
            {key: record.environment[key] for key in place} if same else place
        )


def test_a_dry_run_tells_the_work_and_does_none(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, manifest_text())
    done = cli("run", path, "-o", tmp_path / "runs", "--dry-run", "--json")
    assert done.json == [
        {
            "manifest": str(path),
            "work": [
                {"what": what, "total": total, "cached": 0, "image_passes": passes, "full_size_passes": passes}
                for what, total, passes in (
                    ("train Original", 1, 2 * 1352),
                    ("train FDR", 1, 2 * (1352 - 266)),
                    ("unlearn with wd", 1, None),
                    ("extract features", 3, 3 * 1797),
                    ("metrics and record", 3, 0),
                )
            ],
        }
    ]
    text = cli("run", path, "-o", tmp_path / "runs", "--dry-run").out
    assert text.startswith(f"{path}: 3 cells\n")
    # Weight deletion has no epochs.
    assert "only a run" not in text
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_says_that_a_method_may_read_more_than_its_epochs(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, manifest_text('[[unlearners]]\nname = "erwp"'))
    text = cli("run", path, "-o", tmp_path / "runs", "--dry-run").out
    assert " ".join(text.split()).endswith(MORE)


@pytest.mark.slow
def test_both_counts_are_told_where_the_resolution_grows(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, manifest_text(training=f"{TRAINING}\nresolutions = [[1, 4]]"))
    done = cli("run", path, "-o", tmp_path / "runs", "--dry-run", "--json")
    # One epoch has a quarter of the pixels, the other all.
    work = done.json[0]["work"][0]
    assert (work["image_passes"], work["full_size_passes"]) == (2 * 1352, 1352 * 5 // 4)
    assert "2,704 (1,690 at full size)" in cli("run", path, "-o", tmp_path / "runs", "--dry-run").out
    assert cli("run", path, "-o", tmp_path / "runs").code == 0
    records = {record.method.name: record for record in load_records(tmp_path / "runs")}
    assert sum(records["original"].image_passes.values()) == 2 * 1352
    assert records["original"].details["full_size_passes"] == 1352 * 5 // 4
    assert "full_size_passes" not in records["wd"].details


def test_a_run_prints_json_for_programs(copied: FinishedRun) -> None:
    rows = cli("run", copied.manifest, "-o", copied.output, "--json").json
    assert rows == cli("table", copied.output, "--json").json
    assert {(row["method"], row["role"]) for row in rows} == {
        ("original", "reference"),
        ("fdr", "reference"),
        ("wd", "control"),
        ("folnrc", "unlearner"),
        ("erwp", "unlearner"),
    }
    for row in rows:
        assert row["seeds"] == [0, 1]
        assert set(row["retain_accuracy"]["values"]) == {"0", "1"}
        assert 0 <= row["retain_accuracy"]["mean"] <= 1


def test_only_runs_the_method_named_and_the_references(tmp_path: Path, finished: FinishedRun) -> None:
    works = cli("run", finished.manifest, "-o", tmp_path, "--only", "folnrc", "--dry-run", "--json").json[0]["work"]
    assert [work["what"] for work in works if work["what"].startswith("unlearn")] == ["unlearn with folnrc"]


def test_only_with_an_unknown_label_names_the_nearest(finished: FinishedRun, tmp_path: Path) -> None:
    done = cli("run", finished.manifest, "-o", tmp_path / "runs", "--only", "folnrx")
    assert done == Done(
        2,
        "",
        f"--only folnrx: {finished.manifest} has no method of this label\n"
        "  Did you mean 'folnrc'? Valid: erwp, fdr, folnrc, original, wd\n",
    )


def test_an_unknown_device_is_named(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, manifest_text())
    done = cli("run", path, "-o", tmp_path / "runs", "--device", "gpu")
    assert done.code == 2
    assert done.err.endswith("--device gpu: no such device\n  Valid: auto, cpu, cuda, cuda:N, mps\n")


def test_a_device_that_torch_cannot_use_is_named_with_the_way_out(tmp_path: Path) -> None:
    # No machine has that many GPUs, and most machines that run the tests have none.
    done = cli("run", write_manifest(tmp_path, manifest_text()), "-o", tmp_path / "runs", "--device", "cuda:99")
    assert done.code == 2
    message, mend = done.err.splitlines()[-2:]
    assert message.startswith("--device cuda:99: torch cannot use it: ")
    assert mend == "  Use --device cpu; unlearnbench doctor says which GPU torch finds"


def test_two_manifests_do_not_write_over_each_others_records(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = (
        write_manifest(tmp_path / name, manifest_text(FOLNRC.replace("epochs = 1", f"epochs = {epochs}")))
        for name, epochs in (("a", 1), ("b", 2))
    )
    done = cli("run", first, second, "-o", tmp_path / "runs", "--dry-run")
    assert done.code == 2
    assert done.err.startswith(f"{first} and {second}: both would write records/small/digits-digits_net-forget2-10pct")
    second.write_text(f'name = "other"\n{second.read_text()}')
    assert cli("run", first, second, "-o", tmp_path / "runs", "--dry-run").code == 0
    assert cli("run", first, first, "-o", tmp_path / "runs", "--dry-run").code == 0


def test_finished_records_that_a_changed_manifest_replaces_are_named(finished: FinishedRun, tmp_path: Path) -> None:
    text = finished.manifest.read_text()
    changed = write_manifest(tmp_path, text.replace("learning_rate = 1e-3", "learning_rate = 2e-3"), "short.toml")
    assert changed.read_text() != text
    done = cli("run", changed, "-o", finished.output, "--device", "cpu", "--dry-run")
    assert done.code == 0, done.err
    told = f"2 finished records are not of {changed} as it stands; a run makes them anew in the same place: "
    assert f"{told}{finished.output}/records/short/" in done.err


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, manifest_text())
    done = cli("run", path, "-o", path / "runs")
    assert done == Done(
        1, "", f"{path}/runs: the output folder cannot be written: Not a directory\n  Choose another with --output\n"
    )


def test_a_records_folder_that_cannot_be_written_is_named(copied: FinishedRun) -> None:
    shutil.rmtree(copied.output / "records")
    (copied.output / "records").write_text("")
    done = cli("run", copied.manifest, "-o", copied.output, "--device", "cpu")
    assert done.code == 1
    first = "short/digits-digits_net-forget2-10pct-"
    message, hint = done.err.splitlines()[-2:]
    assert hint == "  Mend that, then run the same command again: it goes on from what is done"
    assert message.startswith(f"{copied.output}/records/{first}")
    assert re.search(r"/(original|fdr)/seed-\d\.json: cannot be written: Not a directory$", message)


def store_file(run: FinishedRun, cell: str, kind: str) -> Path:
    """Return the model or feature file that a record was made from."""
    return run.output / read_record(record_files(run.output)[cell]).files[kind].path


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def _remove(path: Path) -> None:
    path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "cell"), [("model", "original/seed-0.json"), ("model", "erwp/seed-1.json"), ("features", "wd/seed-0.json")]
)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "is damaged: {short} bytes, not {size}; it is made again"),
        (_alter, "is damaged: its content is not what was written; it is made again"),
        (_remove, "is missing; it is made again"),
    ],
)
def test_a_damaged_file_of_the_store_is_named_and_made_again(
    finished: FinishedRun, copied: FinishedRun, kind: str, cell: str, damage: Callable[[Path], None], message: str
) -> None:
    path = store_file(copied, cell, kind)
    size = path.stat().st_size
    content = path.read_bytes()
    damage(path)
    done = cli("run", copied.manifest, "-o", copied.output, "--device", "cpu")
    assert done.code == 0
    assert f"{path} {message.format(short=size - 7, size=size)}" in done.err.splitlines()
    assert comparable_records(copied.output) == comparable_records(finished.output)
    assert kind == "features" or path.read_bytes() == content
    assert cli("run", copied.manifest, "-o", copied.output).err.startswith("short: all 10 cells are done already\n")


@pytest.mark.parametrize(("kind", "cell"), [("model", "fdr/seed-0.json"), ("features", "erwp/seed-0.json")])
@pytest.mark.parametrize("what", ["folder", "entry"])
def test_a_missing_part_of_the_store_is_made_again(
    finished: FinishedRun, copied: FinishedRun, kind: str, cell: str, what: str
) -> None:
    folder = store_file(copied, cell, kind).parent
    if what == "folder":
        shutil.rmtree(folder)
    else:
        (folder / "entry.json").unlink()
    done = cli("run", copied.manifest, "-o", copied.output, "--device", "cpu")
    assert done.code == 0
    assert comparable_records(copied.output) == comparable_records(finished.output)
    assert (folder / "entry.json").is_file()


@pytest.mark.parametrize("content", ["", '{"schema_version": 1', "[]"])
def test_a_damaged_record_is_named_and_made_again(finished: FinishedRun, copied: FinishedRun, content: str) -> None:
    path = record_files(copied.output)["erwp/seed-1.json"]
    path.write_text(content)
    table = cli("table", copied.output)
    assert (table.code, table.out) == (1, "")
    assert table.err.startswith(f"{path}: not a ")
    done = cli("run", copied.manifest, "-o", copied.output, "--device", "cpu")
    assert done.code == 0
    assert done.err.splitlines()[0].startswith(f"{path}: not a ")
    assert done.err.splitlines()[0].endswith("; it is made again")
    assert comparable_records(copied.output) == comparable_records(finished.output)


@pytest.mark.parametrize(
    ("replace", "reason"),
    [(Path.mkdir, "Is a directory"), (lambda path: path.symlink_to("/nowhere"), "No such file or directory")],
    ids=["folder", "link"],
)
def test_what_stands_in_a_record_s_place_is_named_and_makes_way(
    finished: FinishedRun, copied: FinishedRun, replace: Any, reason: str
) -> None:
    path = record_files(copied.output)["erwp/seed-1.json"]
    path.unlink()
    replace(path)
    done = cli("run", copied.manifest, "-o", copied.output, "--device", "cpu")
    assert done.code == 0
    assert done.err.splitlines()[0] == f"{path}: cannot be read: {reason}; it is made again"
    assert comparable_records(copied.output) == comparable_records(finished.output)


def test_records_in_each_other_s_places_are_named_and_made_again(finished: FinishedRun, copied: FinishedRun) -> None:
    first, second = (record_files(copied.output)[name] for name in ("wd/seed-0.json", "erwp/seed-1.json"))
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])
    done = cli("run", copied.manifest, "-o", copied.output, "--device", "cpu")
    assert done.code == 0
    assert done.err.splitlines()[:2] == [
        f"{first} is the record of erwp, seed 1; it is made again",
        f"{second} is the record of wd, seed 0; it is made again",
    ]
    assert comparable_records(copied.output) == comparable_records(finished.output)


def test_a_record_changed_by_hand_is_named_and_made_again(finished: FinishedRun, copied: FinishedRun) -> None:
    path = record_files(copied.output)["wd/seed-0.json"]
    values = json.loads(path.read_text())
    values["metrics"]["retain_accuracy"]["value"] = 1.0
    path.write_text(json.dumps(values))
    message = f"{path}: the content was changed after the run: its hash is not {values['hash'][:16]}..."
    mend = "  Put the run's own record back, or run the manifest again, which writes it anew"
    assert cli("table", copied.output) == Done(1, "", f"{message}\n{mend}\n")
    done = cli("run", copied.manifest, "-o", copied.output, "--device", "cpu")
    assert done.err.splitlines()[0] == f"{message}; it is made again"
    assert comparable_records(copied.output) == comparable_records(finished.output)


def test_table_of_a_folder_without_records_tells_how_to_make_some(tmp_path: Path) -> None:
    assert cli("table", tmp_path) == Done(
        1, "", f"{tmp_path}: holds no run records\n  unlearnbench run MANIFEST -o {tmp_path}\n"
    )


def test_leaderboard_build_writes_its_pages(finished: FinishedRun, tmp_path: Path) -> None:
    done = cli("leaderboard", "build", finished.output, "-o", tmp_path / "board")
    assert done.code == 0
    written = done.out.splitlines()
    assert written[0] == f"{tmp_path}/board/README.md"
    assert sorted(written) == sorted(str(path) for path in (tmp_path / "board").iterdir() if path.is_file())
    page = next(Path(path) for path in written if Path(path).name.startswith("digits-")).read_text()
    assert page.startswith("# digits / digits_net\n")
    assert "- Forget classes: 8, 9\n" in page


def test_a_table_can_be_listed_in_another_order_and_the_ranks_stay(finished: FinishedRun) -> None:
    rows, listed = (
        cli("table", finished.output, *order, "--json").json for order in ((), ("--rank-by", "image-passes"))
    )
    assert {row["method"]: row["rank"] for row in rows} == {row["method"]: row["rank"] for row in listed}
    assert {row["method"] for row in listed} == {row["method"] for row in rows}


@pytest.mark.slow
def test_doctor_finds_this_installation_healthy() -> None:
    done = cli("doctor")
    assert done.code == 0
    found = {line.split("  ", 1)[1].strip().partition(": ")[0]: line.split()[0] for line in done.out.splitlines()}
    assert {"torch", "torch and torchvision", "device", "data folder", *KINDS} <= set(found)
    assert set(found.values()) == {"ok"}


@pytest.mark.slow
def test_doctor_names_a_broken_plugin_and_looks_at_the_rest(search_path: Path) -> None:
    fake_distribution(search_path, "sick", {"metrics": {"sick": "sick_module:f"}}, {"sick_module": "1 / 0"})
    fake_distribution(search_path, "twin", {"metrics": {"forget_accuracy": "sick_module:f"}})
    done = cli("doctor")
    assert done.code == 1
    problems = [line for line in done.out.splitlines() if line.startswith("PROBLEM")]
    assert problems == [
        f"PROBLEM  metrics: metric 'forget_accuracy' is claimed by twin 1.0 and unlearnbench {__version__}"
    ]
    assert (
        "metric 'sick' of sick 1.0 cannot be loaded from sick_module:f: ZeroDivisionError: division by zero" in done.out
    )


METHODS = """
import sys
import torch
from unlearnbench.errors import NotApplicable
def raises(model, task):
    raise ValueError("first line\\nsecond line")
def leaves(model, task):
    sys.exit(7)
def not_here(model, task):
    raise NotApplicable("needs batch norm layers")
def no_model(model, task):
    return 3
def no_number(model, task):
    model[0].weight.data[0, 0, 0, 0] = float("nan")
    return model
def empties(model, task):
    model[-1] = torch.nn.Linear(8, 3)
    return model
def fine(model, task):
    return model
"""
BROKEN_METRIC = "def odd(features):\n    raise KeyError('nothing')\n"


@pytest.mark.slow
def test_a_method_that_fails_is_a_failed_cell_while_the_others_finish(search_path: Path, tmp_path: Path) -> None:
    methods = ["raises", "leaves", "not_here", "no_model", "no_number", "empties", "fine"]
    fake_distribution(
        search_path,
        "bad-methods",
        {"unlearners": {name: f"bad_methods:{name}" for name in methods}, "metrics": {"odd": "odd_metric:odd"}},
        {"bad_methods": METHODS, "odd_metric": BROKEN_METRIC},
    )
    entries = [f'[[unlearners]]\nname = "{name}"' for name in methods]
    path = write_manifest(tmp_path, manifest_text(*entries, WD, '[[metrics]]\nname = "odd"'))
    done = cli("run", path, "-o", tmp_path / "runs", "--device", "cpu")
    assert done.code == 1
    assert "Traceback" not in done.err
    found = {name: read_record(file) for name, file in record_files(tmp_path / "runs").items()}
    outcomes = {name.partition("/")[0]: (record.status, record.reason) for name, record in found.items()}
    assert outcomes == {
        "original": ("done", None),
        "fdr": ("done", None),
        "raises": ("failed", "ValueError: first line"),
        "leaves": ("failed", "SystemExit: 7"),
        "not_here": ("not_applicable", "needs batch norm layers"),
        "no_model": ("failed", "no_model returned int, not the unlearned torch.nn.Module"),
        "no_number": ("failed", "no_number returned a model whose parameter 0.weight is not finite"),
        "empties": (
            "failed",
            "empties returned a model with 3 outputs for 10 classes; keep_outputs and add_output of "
            "unlearnbench.models.classifier change them",
        ),
        "fine": ("done", None),
        "wd": ("done", None),
    }
    odd = found["wd/seed-0.json"].metrics["odd"]
    assert (odd.status, odd.value, odd.reason) == ("failed", None, "KeyError: 'nothing'")
    (log,) = [file for file in (tmp_path / "runs" / "logs").iterdir() if "raises" in file.name]
    assert "second line" in log.read_text()
    assert f"raises, seed 0: what it printed last is in {log}" in done.err
    assert "raises: failed with seed 0: ValueError: first line\n" in done.out
    assert "not_here: not applicable with seed 0: needs batch norm layers\n" in done.out
    # A failed cell is tried again, but one that is not applicable is not.
    again = cli("run", path, "-o", tmp_path / "runs", "--device", "cpu")
    assert again.code == 1
    assert "not applicable: needs batch norm layers (done before)" in again.err
    assert "raises, seed 0: failed: ValueError: first line\n" in again.err


@pytest.mark.slow
def test_a_training_that_diverges_fails_its_methods_with_the_reason(tmp_path: Path) -> None:
    text = manifest_text().replace("learning_rate = 0.1", "learning_rate = 1e30")
    done = cli("run", write_manifest(tmp_path, text), "-o", tmp_path / "runs", "--device", "cpu")
    assert done.code == 1
    reasons = {name: read_record(file).reason for name, file in record_files(tmp_path / "runs").items()}
    blown = "the loss is not finite (nan) in epoch 1 of {}"
    assert reasons == {
        "original/seed-0.json": blown.format("Original"),
        "fdr/seed-0.json": blown.format("FDR"),
        "wd/seed-0.json": f"Original of seed 0 failed: {blown.format('Original')}",
    }


def test_a_dataset_that_is_missing_is_a_fault_of_the_manifest(search_path: Path, tmp_path: Path) -> None:
    source = (
        "from unlearnbench.errors import DatasetError\n"
        "def gone(folder):\n"
        "    raise DatasetError(f'gone: {folder}/gone is missing\\n  unlearnbench data fetch gone')\n"
    )
    fake_distribution(search_path, "gone", {"datasets": {"gone": "gone_data:gone"}}, {"gone_data": source})
    path = write_manifest(tmp_path, manifest_text(dataset=DATASET.replace("digits", "gone")))
    done = cli("validate", path)
    assert (done.code, done.out) == (1, "")
    first, second = done.err.splitlines()
    assert first.startswith(f"{path}:3: dataset.name: gone: ")
    assert first.endswith("/data/gone is missing")
    assert second == "  unlearnbench data fetch gone"
