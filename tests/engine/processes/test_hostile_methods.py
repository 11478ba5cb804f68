"""Methods that do harm: each is a failed or an honest cell, and every other record is as if they had not been there."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from support.commands import cli
from support.hostile import FENCED, HONEST, METHODS, ODD, REASONS, entry, fenced, needs
from support.manifests import FOLNRC, WD, manifest_text, write_manifest
from support.plugins import fake_distribution
from support.records import comparable_records, record_files

from unlearnbench.engine.processes.fence import landlock
from unlearnbench.results.records.files import read_record
from unlearnbench.results.records.record import Record

pytestmark = pytest.mark.slow


def test_whatever_a_method_does_the_others_records_are_the_same(
    search_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = fenced(landlock())
    names = (*HONEST, *REASONS, *ODD, *stopped)
    fake_distribution(
        search_path, "hostile", {"unlearners": {name: f"hostile:{name}" for name in names}}, {"hostile": METHODS}
    )
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-user")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home/.aws").mkdir(parents=True)
    (tmp_path / "home/.aws/credentials").write_text("a-secret-of-the-user")
    note, runs = tmp_path / "elsewhere/note", tmp_path / "bad"
    options = needs(note, runs / "store")
    limits = ("--cell-time-limit", "15", "--cell-memory", "0.75")
    good = write_manifest(tmp_path, manifest_text(WD, FOLNRC), "same.toml")
    assert cli("run", good, "-o", tmp_path / "good", "--device", "cpu", "--jobs", 2).code == 0
    bad = write_manifest(
        tmp_path, manifest_text(*(entry(name, options.get(name, "")) for name in names), WD, FOLNRC), "same.toml"
    )
    folder = Path.cwd()
    done = cli("run", bad, "-o", runs, "--device", "cpu", "--jobs", 2, "--json", *limits)
    assert Path.cwd() == folder
    assert done.code == 1
    assert "Traceback" not in done.err
    assert {row["method"] for row in json.loads(done.out)} >= {"original", "fdr", *names}
    found: dict[str, Record] = {name.partition("/")[0]: read_record(path) for name, path in record_files(runs).items()}
    reasons = REASONS | ({"kills_its_parent": FENCED["kills_the_run"]} if landlock() >= 6 else {})
    assert {name: found[name].reason for name in reasons} == reasons
    assert {name: (found[name].reason or "")[: len(reason)] for name, reason in stopped.items()} == stopped
    assert {name: found[name].status for name in HONEST} == dict.fromkeys(HONEST, "done")
    assert {found[name].status for name in ODD} == {"failed"}
    assert re.search(r" GiB, more than cell_memory allows, [0-9.]+ GiB$", found["fills_memory"].reason or "")
    assert (found["cuts"].reason or "").startswith("cuts returned weights that do not fit the network: ")
    # A link would be followed by the process that judges, to which nothing is closed, and a pipe waited for.
    for name in ("links", "pipes"):
        assert (found[name].reason or "").startswith(f"{name} returned weights that do not fit the network: [Errno ")
    assert found["exits"].details["log"] == ["printed at import"]
    # Neither test images nor training images outside the limited data were anywhere in its memory.
    assert found["walks_memory"].details["largest"] == found["walks_memory"].details["limited"] == 140
    # What other processes began with is closed to it by the fence alone.
    if landlock():
        assert found["seeks_credentials"].details["found"] == []
    _assert_gone(int(note.read_text()))
    others = comparable_records(tmp_path / "good")
    after = comparable_records(runs)
    assert {name for name in others if name in after} == set(others)
    for name, record in others.items():
        assert {**after[name], "manifest": None, "hash": None} == {**record, "manifest": None, "hash": None}


def _assert_gone(process: int) -> None:
    for _ in range(50):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f"process {process} lives on")


def test_a_method_that_raises_at_import_is_a_failed_cell(search_path: Path, tmp_path: Path) -> None:
    text = "raise SystemExit('not today')\ndef never(model, task):\n    return model\n"
    fake_distribution(search_path, "sick", {"unlearners": {"never": "sick:never"}}, {"sick": text})
    path = write_manifest(tmp_path, manifest_text(entry("never"), WD))
    assert cli("run", path, "-o", tmp_path / "runs", "--device", "cpu").code == 1
    found = {name.partition("/")[0]: read_record(file) for name, file in record_files(tmp_path / "runs").items()}
    assert found["never"].reason == (
        "unlearner 'never' of sick 1.0 cannot be loaded from sick:never: SystemExit: not today"
    )
    assert found["wd"].status == "done"
