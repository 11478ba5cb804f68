"""Runs that are killed, interrupted, or not alone."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FinishedRun
from filelock import FileLock
from support.commands import RUN, cli, start
from support.manifests import manifest_text, write_manifest
from support.plugins import fake_distribution
from support.records import comparable_records

from unlearnbench.results.records.files import read_record, write_record
from unlearnbench.results.records.record import with_hash

pytestmark = pytest.mark.slow


def start_run(manifest: Path, output: Path) -> subprocess.Popen[str]:
    return start("-c", RUN, "run", manifest, "-o", output, "--device", "cpu")


def wait_for(moment: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until a run reaches a moment, which must come before the run ends."""
    end = time.monotonic() + 300
    while not moment():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


def count(output: Path, pattern: str) -> int:
    return sum(1 for _ in output.glob(pattern))


def test_a_run_killed_again_and_again_ends_in_the_same_records(finished: FinishedRun, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    moments: list[Callable[[], bool]] = [
        lambda: count(output, "store/models/*.partial") > 0,
        lambda: count(output, "records/**/seed-*.json") >= 4 and count(output, "store/relevance/*.partial") > 0,
        lambda: count(output, "records/**/seed-*.json") >= 7,
    ]
    for moment in moments:
        process = start_run(finished.manifest, output)
        wait_for(moment, process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    done = cli("run", finished.manifest, "-o", output, "--device", "cpu")
    assert done.code == 0, done.err
    assert comparable_records(output) == comparable_records(finished.output)
    assert count(output, "store/**/*.partial") == 0


def test_ctrl_c_exits_with_130_and_the_next_run_goes_on(finished: FinishedRun, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    process = start_run(finished.manifest, output)
    wait_for(lambda: count(output, "records/**/seed-*.json") >= 2, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; the same command goes on from here"
    assert "Traceback" not in err
    done = cli("run", finished.manifest, "-o", output, "--device", "cpu")
    assert done.code == 0
    before = int(re.search(r"10 cells, (\d+) done before", done.err)[1])
    assert before > 0
    # Cells that were done before are counted, but only the others are reported.
    assert len(re.findall(r"^\[\d+/10\]", done.err, re.M)) == 10 - before
    assert comparable_records(output) == comparable_records(finished.output)


def test_ctrl_c_before_the_first_cell_is_told_too(search_path: Path, tmp_path: Path) -> None:
    source = "def slow(folder):\n    raise KeyboardInterrupt\n"
    fake_distribution(search_path, "slow", {"datasets": {"slow": "slow_data:slow"}}, {"slow_data": source})
    path = write_manifest(tmp_path, manifest_text(dataset='[dataset]\nname = "slow"'))
    done = cli("run", path, "-o", tmp_path / "runs")
    assert (done.code, done.out) == (130, "")
    assert done.err == "interrupted; the same command goes on from here\n"


def test_two_runs_on_one_output_folder_share_their_work(finished: FinishedRun, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    model = min(entry.name for entry in (finished.output / "store/models").iterdir() if entry.is_dir())
    lock = output / f"store/models/{model}.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        processes = [start_run(finished.manifest, output) for _ in range(2)]
        for process in processes:
            assert any(f"another run is making models/{model}; waiting" in line for line in process.stderr or ())
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert "Original" in results[0][0]
    assert comparable_records(output) == comparable_records(finished.output)


def test_what_was_judged_while_a_reference_had_failed_is_judged_again(finished: FinishedRun, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    shutil.copytree(finished.output, output)
    (path,) = output.glob("records/*/*/folnrc/seed-0.json")
    record = read_record(path)
    gap = record.metrics["normalised_gap"]
    lacking = gap.model_copy(
        update={"status": "failed", "value": None, "reason": "no references: fdr of seed 0 failed"}
    )
    changed = record.model_copy(update={"metrics": {**record.metrics, "normalised_gap": lacking}})
    write_record(with_hash(changed), path)
    done = cli("run", finished.manifest, "-o", output, "--device", "cpu")
    assert done.code == 0
    assert "10 cells, 9 done before" in done.err
    assert len(re.findall(r"^\[\d+/10\]", done.err, re.M)) == 1
    assert comparable_records(output) == comparable_records(finished.output)
