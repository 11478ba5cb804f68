"""Runs with --jobs give the same records, whatever happens to their processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import FinishedRun
from support.commands import cli, python, start
from support.manifests import TRAINING, WD, manifest_text, write_manifest
from support.plugins import fake_distribution
from support.records import comparable_records, record_files

from unlearnbench.results.records.files import read_record
from unlearnbench.results.records.record import Record

pytestmark = pytest.mark.slow

METHODS = """
import os
import signal
import time
def dies(model, task):
    os.kill(os.getpid(), signal.SIGKILL)
def leaves(model, task):
    os._exit(3)
def falls_silent_first(model, task):
    os.closerange(3, 1000)
    time.sleep(1.0)
    os._exit(4)
def never_ends(model, task):
    while True:
        for images, _ in task.batches(1):
            model(images)
"""
LABELS = ("dies", "leaves", "falls_silent_first", "never_ends")


def install(search_path: Path) -> None:
    fake_distribution(
        search_path, "deadly", {"unlearners": {name: f"deadly:{name}" for name in LABELS}}, {"deadly": METHODS}
    )


def entry(name: str) -> str:
    return f'[[unlearners]]\nname = "{name}"'


def without_jobs(records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for values in records.values():
        del values["environment"]["jobs"]
    return records


def records(output: Path) -> dict[str, Record]:
    return {name.partition("/")[0]: read_record(path) for name, path in record_files(output).items()}


def start_run(manifest: Path, output: Path, path: Path | None = None) -> subprocess.Popen[str]:
    """Start a run with two workers in a process group of its own, as a terminal would."""
    run = ("-m", "unlearnbench", "run", manifest, "-o", output, "--device", "cpu", "--jobs", "2")
    return start(*run, path=path, own_group=True)


def wait_for(moment: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until a run reaches a moment, which must come before the run ends."""
    end = time.monotonic() + 600
    while not moment():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


def test_two_workers_leave_the_records_of_one_process(finished: FinishedRun, tmp_path: Path) -> None:
    done = cli("run", finished.manifest, "-o", tmp_path / "runs", "--device", "cpu", "--jobs", "2")
    assert done.code == 0, done.err
    assert done.err.splitlines()[0] == "short: 10 cells, 0 done before, on cpu, 2 at a time"
    assert [line.partition("]")[0] for line in done.err.splitlines() if line.startswith("[")] == [
        f"[{number}/10" for number in range(1, 11)
    ]
    # No worker waits for something that another one makes.
    assert "another run" not in done.err
    found = comparable_records(tmp_path / "runs")
    assert {values["environment"]["jobs"] for values in found.values()} == {2}
    assert without_jobs(found) == without_jobs(comparable_records(finished.output))


def test_a_worker_that_dies_is_a_failed_cell_and_is_replaced(search_path: Path, tmp_path: Path) -> None:
    install(search_path)
    path = write_manifest(tmp_path, manifest_text(entry("dies"), entry("leaves"), WD))
    done = cli("run", path, "-o", tmp_path / "runs", "--device", "cpu", "--jobs", "2")
    found = records(tmp_path / "runs")
    assert {name: record.status for name, record in found.items()} == {
        "original": "done",
        "fdr": "done",
        "dies": "failed",
        "leaves": "failed",
        "wd": "done",
    }
    assert found["dies"].reason == "its process was killed by SIGKILL; the system does that when memory runs out"
    assert found["leaves"].reason == "its process ended with exit code 3"
    assert found["dies"].environment == found["wd"].environment
    assert f"dies, seed 0: failed: {found['dies'].reason}" in done.err
    assert "Traceback" not in done.err
    assert done.code == 1


def test_a_worker_whose_connection_ends_before_it_does_is_a_failed_cell_too(search_path: Path, tmp_path: Path) -> None:
    install(search_path)
    path = write_manifest(tmp_path, manifest_text(entry("falls_silent_first"), WD))
    done = cli("run", path, "-o", tmp_path / "runs", "--device", "cpu", "--jobs", "2")
    found = records(tmp_path / "runs")
    assert found["falls_silent_first"].reason == "its process ended with exit code 4"
    assert found["wd"].status == "done"
    assert done.code == 1


def test_a_reference_model_that_cannot_be_trained_fails_as_in_one_process(tmp_path: Path) -> None:
    text = manifest_text(WD, training=TRAINING.replace("learning_rate = 0.1", "learning_rate = 1e30"))
    path = write_manifest(tmp_path, text)
    for jobs in ("1", "2"):
        done = cli("run", path, "-o", tmp_path / jobs, "--device", "cpu", "--jobs", jobs)
        assert done.code == 1
    found = comparable_records(tmp_path / "2")
    assert {values["status"] for values in found.values()} == {"failed"}
    assert "Original of seed 0 failed" in found["wd/seed-0.json"]["reason"]
    assert without_jobs(found) == without_jobs(comparable_records(tmp_path / "1"))


def test_what_both_workers_find_is_said_once(finished: FinishedRun, tmp_path: Path) -> None:
    path = write_manifest(tmp_path, finished.manifest.read_text(), "short.toml")
    output = tmp_path / "runs"
    assert cli("run", path, "-o", output, "--device", "cpu").code == 0
    features = sorted((output / "store" / "features").glob("*/features.h5"))
    for file in features:
        file.write_bytes(b"")
    done = cli("run", path, "-o", output, "--device", "cpu", "--jobs", "2")
    assert done.code == 0
    assert [done.err.count(f"{file} is damaged") for file in features] == [1] * 10


def test_ctrl_c_ends_all_workers_and_the_next_run_goes_on(finished: FinishedRun, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    process = start_run(finished.manifest, output)
    wait_for(lambda: len(record_files(output)) >= 2, process)
    os.killpg(process.pid, signal.SIGINT)
    # Workers hold these streams too, so that the end of the streams shows that no worker is left.
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; the same command goes on from here"
    assert "Traceback" not in err
    done = cli("run", finished.manifest, "-o", output, "--device", "cpu", "--jobs", "2")
    assert done.code == 0, done.err
    assert not re.search(r", 0 done before", done.err)
    assert without_jobs(comparable_records(output)) == without_jobs(comparable_records(finished.output))


def test_ctrl_c_while_workers_start_leaves_none(finished: FinishedRun, tmp_path: Path) -> None:
    process = start_run(finished.manifest, tmp_path / "runs")
    assert process.stderr is not None
    # Next, the run starts its workers, which takes them seconds.
    assert process.stderr.readline().startswith("short: 10 cells")
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, err) == (130, "", "interrupted; the same command goes on from here\n")


def test_workers_end_with_a_parent_that_is_killed_and_blame_no_method(search_path: Path, tmp_path: Path) -> None:
    install(search_path)
    path = write_manifest(tmp_path, manifest_text(WD, entry("never_ends")))
    output = tmp_path / "runs"
    process = start_run(path, output, search_path)
    wait_for(lambda: len(record_files(output)) == 3 and any(output.glob("store/models/*.partial")), process)
    process.kill()
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert {name: record.status for name, record in records(output).items()} == {
        "original": "done",
        "fdr": "done",
        "wd": "done",
    }
    assert not (output / "logs").exists()


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_a_number_of_jobs_below_one_is_wrong_use(jobs: str, tmp_path: Path) -> None:
    path = write_manifest(tmp_path, manifest_text())
    done = cli("run", path, "-o", tmp_path / "runs", "--jobs", jobs)
    assert done.code == 2
    assert f"Invalid value for '--jobs': {jobs} is not 1 or more" in done.err
    assert not (tmp_path / "runs").exists()


def test_workers_share_the_cores_that_torch_would_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    done = python(
        "-c",
        "import torch; from unlearnbench.engine.runner import work_shares as shares; cpu = torch.device('cpu'); "
        "from unlearnbench.machine import cores; photo, digit = (3, 32, 32), (1, 8, 8); "
        "alone = torch.get_num_threads(); half = max(1, min(alone, cores() // 2)); "
        "print(shares(cpu, photo, None) == shares(cpu, photo, 1) == (1, alone), shares(cpu, photo, 1000), "
        "shares(cpu, digit, 1), shares(cpu, digit, None) == (cores(), 1), shares(cpu, photo, 2) == (2, half))",
    )
    assert (done.out, done.code) == ("True (1000, 1) (1, 1) True True\n", 0), done.err
