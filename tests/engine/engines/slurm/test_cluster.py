"""The engine on Slurm gives what the local one gives, whatever becomes of its jobs; a real Slurm runs here."""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from support import clusters
from support.clusters import (
    FEDERATED,
    LIMIT_SECONDS,
    add,
    alone,
    compare_with_a_local_run,
    die_first,
    divide,
    end_all,
    first_of,
    kill_a_run,
    resume,
    take_long_first,
    train_slowly_first,
    trained_at_once,
    wait_until,
)
from support.commands import cli
from support.paths import REPOSITORY

from unlearnbench.engine.engines.engine import DiedError, EngineError, Need
from unlearnbench.engine.engines.place import Profile
from unlearnbench.engine.engines.slurm import cluster
from unlearnbench.engine.engines.slurm.cluster import DetachedError, SlurmEngine, job_states
from unlearnbench.engine.engines.slurm.job import Batch, CallFiles, write_whole
from unlearnbench.engine.engines.slurm.queue import SlurmQueue

pytestmark = pytest.mark.slow

SCRIPT = Path(clusters.__file__).with_name("slurm_cluster.sh")
PROFILE = Profile(minutes=10, memory_gib=1, jobs_at_once=4, stages_per_job=2)
SAID: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def _slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start a Slurm with two nodes on this machine, whose jobs find the tests' functions."""
    if os.geteuid() != 0:
        pytest.skip("needs root, which starts a Slurm on this machine")
    if find_spec("submitit") is None or shutil.which("slurmctld") is None:
        pytest.skip("needs pip install 'unlearnbench[slurm]' and Debian's slurmctld, slurmd, slurmdbd, munge, mariadb")
    folder = tmp_path_factory.mktemp("slurm")
    with alone(tmp_path_factory), pytest.MonkeyPatch.context() as patch:
        path = [str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        patch.setenv("SLURM_LOCAL", str(folder))
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        # What is patience on a cluster is waste of time here.
        for name, seconds in {"LOOK_SECONDS": 0.2, "QUEUE_SECONDS": 1.0, "GRACE_SECONDS": 2.0}.items():
            patch.setattr(cluster, name, seconds)
        started = subprocess.run(
            ["bash", SCRIPT, "start", "2", "2"], timeout=LIMIT_SECONDS, capture_output=True, text=True, check=False
        )
        try:
            if started.returncode:
                pytest.skip(f"Slurm does not start here: {started.stderr.strip()[-200:]}")
            yield
        finally:
            subprocess.run(["bash", SCRIPT, "stop"], timeout=60, capture_output=True, check=False)


def engine_in(folder: Path, detach: bool = False, profile: Profile = PROFILE) -> SlurmEngine:
    return SlurmEngine(folder / "slurm", profile, [], SAID.append, threads=1, detach=detach)


def live_jobs() -> list[str]:
    return subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True, check=True).stdout.split()


def test_results_errors_and_deaths_come_back(tmp_path: Path) -> None:
    (tmp_path / "deaths").mkdir()
    with engine_in(tmp_path) as engine:
        numbers = engine.share([10, 20])
        futures = [engine.submit(Need(), add, number, 1) for number in range(2)]
        failing, shared = engine.submit(Need(), divide, 0), engine.submit(Need(), first_of, numbers)
        survives = engine.submit(Need(retries=1), die_first, tmp_path / "deaths", 1)
        end_all(engine, [*futures, failing, shared, survives])
    assert [future.result()[0] for future in futures] == [1, 2]
    # A job computes several, and each has a process of its own.
    assert len({future.result()[1] for future in futures}) == 2
    assert (shared.result(), survives.result()) == (10, 1)
    with pytest.raises(ZeroDivisionError):
        failing.result()
    assert {"0 + 1", "1 + 1"} <= set(SAID)
    assert list((tmp_path / "slurm" / "calls").iterdir()) == []


def hand_to_a_job_that_is_lost(folder: Path, name: str) -> None:
    """Leave behind what a run does that has submitted a function, to a job that nobody knows any more."""
    files = CallFiles(folder / "slurm" / "calls", name)
    write_whole(files.call, pickle.dumps((add, [2, 3])))
    write_whole(files.job, b"999999")


def test_what_was_handed_to_a_lost_job_is_submitted_again(tmp_path: Path) -> None:
    hand_to_a_job_that_is_lost(tmp_path, "one")
    with engine_in(tmp_path) as engine:
        future = engine.submit(Need(name="one"), add, 2, 3)
        end_all(engine, [future])
    assert future.result()[0] == 5
    assert "slurm: job 999999: lost; submitted again, 1 of 10" in SAID


def test_a_function_whose_job_is_lost_too_often_has_died(tmp_path: Path) -> None:
    hand_to_a_job_that_is_lost(tmp_path, "one")
    with engine_in(tmp_path, profile=PROFILE.model_copy(update={"resubmit": 0})) as engine:
        future = engine.submit(Need(name="one"), add, 2, 3)
        end_all(engine, [future])
    with pytest.raises(DiedError, match=r"^its job ended without a result 1 times, last job 999999: lost$"):
        future.result()


def test_what_a_requeued_job_has_done_is_not_done_again(tmp_path: Path) -> None:
    (tmp_path / "once").mkdir()
    with engine_in(tmp_path) as engine:
        first = engine.submit(Need(), add, 1, 1)
        second = engine.submit(Need(retries=1), take_long_first, tmp_path / "once")
        wait_until(lambda: bool(list((tmp_path / "once").iterdir())), engine, [second])
        assert first.job == second.job
        subprocess.run(["scontrol", "requeue", second.job], check=True)
        end_all(engine, [first, second])
    assert (first.result()[0], second.result()) == (2, "again")


def test_a_detached_run_is_picked_up_by_the_next(tmp_path: Path) -> None:
    need = Need(name="one")
    engine = engine_in(tmp_path, detach=True)
    with pytest.raises(DetachedError, match=r"^slurm: 1 stages in 1 job go on alone\n"), engine:
        engine.wait([engine.submit(need, add, 2, 3)], 1.0)
    assert job_states(tmp_path / "slurm", PROFILE)["one"] in {"queued", "running", "ended"}
    end = time.monotonic() + LIMIT_SECONDS
    while job_states(tmp_path / "slurm", PROFILE) != {"one": "ended"}:
        assert time.monotonic() < end
        time.sleep(1)
    with engine_in(tmp_path) as engine:
        # Its arguments are other ones, so that this result is that of the job before.
        future = engine.submit(need, add, 100, 100)
        end_all(engine, [future])
    assert future.result()[0] == 5


def test_a_run_that_ends_cancels_its_jobs(tmp_path: Path) -> None:
    (tmp_path / "once").mkdir()
    with contextlib.ExitStack() as interrupted:
        engine = interrupted.enter_context(engine_in(tmp_path))
        future = engine.submit(Need(), take_long_first, tmp_path / "once")
        wait_until(lambda: bool(list((tmp_path / "once").iterdir())), engine, [future])
        interrupted.pop_all().__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    end = time.monotonic() + LIMIT_SECONDS
    while future.job in live_jobs():
        assert time.monotonic() < end
        time.sleep(0.5)
    assert SAID[-1] == "slurm: 1 job cancelled"
    assert not CallFiles(tmp_path / "slurm" / "calls", future.files.name).job.exists()


def test_a_refused_job_is_one_line(tmp_path: Path) -> None:
    profile = PROFILE.model_copy(update={"partition": "nowhere"})
    with engine_in(tmp_path, profile=profile) as engine:
        future = engine.submit(Need(), divide, 1)
        with pytest.raises(EngineError, match=r"^--on slurm: the jobs were refused: .*\n  Mend the profile"):
            engine.wait([future], 1.0)


def test_a_run_on_slurm_gives_the_records_of_a_local_one(tmp_path: Path) -> None:
    profile = tmp_path / "cluster.toml"
    profile.write_text("minutes = 10\nmemory_gib = 2\nstages_per_job = 2\n")
    on_slurm = ("--on", "slurm", "--profile", profile)
    manifest = compare_with_a_local_run(tmp_path, tmp_path / "runs", *on_slurm)
    asked = cli("run", manifest, "-o", tmp_path / "runs", "--device", "cpu", *on_slurm, "--status")
    assert asked.out == f"{manifest}: 3 cells: 3 done\n"


def test_what_a_lost_node_computed_is_begun_again_on_another(tmp_path: Path) -> None:
    (tmp_path / "once").mkdir()
    with engine_in(tmp_path) as engine:
        future = engine.submit(Need(retries=1), take_long_first, tmp_path / "once")
        wait_until(lambda: bool(list((tmp_path / "once").iterdir())), engine, [future])
        nodes = subprocess.run(["squeue", "-h", "-o", "%N"], capture_output=True, text=True, check=True).stdout.split()
        subprocess.run(["bash", SCRIPT, "kill-node", nodes[0]], check=True)
        end_all(engine, [future])
    assert future.result() == "again"
    subprocess.run(["bash", SCRIPT, "start-node", nodes[0]], check=True)


def limit_time(job: str, minutes: int) -> None:
    """Change the time limit of a job, unless that is gone."""
    subprocess.run(["scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}"], check=False, capture_output=True)


def running_jobs() -> str:
    return subprocess.run(["squeue", "-h", "-t", "R", "-o", "%i"], capture_output=True, text=True, check=True).stdout


def test_a_training_whose_time_is_over_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    with engine_in(tmp_path, profile=PROFILE.model_copy(update={"stages_per_job": 1})) as engine:
        future = engine.submit(Need(), train_slowly_first, tmp_path)
        wait_until(checkpoint.exists, engine, [future])
        # A job that has run for less than a minute is told that its time will soon be over, and is requeued. One that
        # has run for more is ended at once, and submitted again.
        job = future.job
        limit_time(job, 1)
        wait_until(lambda: not running_jobs(), engine, [future])
        limit_time(job, PROFILE.minutes)
        end_all(engine, [future])
    resumed_at, weights = future.result()
    assert resumed_at > 0
    assert weights == trained_at_once()


def test_a_killed_driver_s_jobs_go_on_and_the_next_run_takes_their_results(tmp_path: Path) -> None:
    profile = tmp_path / "cluster.toml"
    profile.write_text("minutes = 10\nmemory_gib = 2\nstages_per_job = 1\n")
    kill_a_run(tmp_path, "--on", "slurm", "--profile", profile)
    resume(tmp_path, "--on", "slurm", "--profile", profile)


def test_the_turns_of_a_killed_federation_go_on_and_none_is_handed_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "cluster.toml"
    profile.write_text("minutes = 10\nmemory_gib = 1\nstages_per_job = 1\n")
    on_slurm, calls = ("--on", "slurm", "--profile", profile, "--parties-apart"), tmp_path / "runs" / "slurm" / "calls"
    kill_a_run(tmp_path, *on_slurm, text=FEDERATED, moment=lambda output: any(calls.glob("*.result")))
    handed = {path.stem for path in calls.glob("*.job")}
    assert handed
    again: list[str] = []
    submit = SlurmQueue.submit

    def noting(queue: SlurmQueue, batches: Sequence[Batch], devices: int = 1) -> list[str]:
        again.extend(files.name for batch in batches for files in batch.files)
        return submit(queue, batches, devices)

    monkeypatch.setattr(SlurmQueue, "submit", noting)
    resume(tmp_path, *on_slurm, text=FEDERATED)
    assert again
    assert not handed & set(again)
    assert list(calls.iterdir()) == []


def test_doctor_tries_each_part_of_slurm(tmp_path: Path) -> None:
    profile = tmp_path / "cluster.toml"
    profile.write_text("minutes = 5\nmemory_gib = 1\nstages_per_job = 4\n")
    done = cli("doctor", "--on", "slurm", "--profile", profile, "-o", tmp_path / "runs")
    host = platform.node()
    assert f"ok       slurm, reached: 4 stages ran on {host}\n" in done.out, done.out
    assert "ok       versions there: the same everywhere\n" in done.out
    assert f"ok       store from there: {tmp_path / 'runs'} can be written\n" in done.out
    assert "ok       GPU there: none asked for; stages compute on CPUs\n" in done.out
    profile.write_text('partition = "nowhere"\n')
    broken = cli("doctor", "--on", "slurm", "--profile", profile, "-o", tmp_path / "runs")
    assert broken.code == 1
    assert "PROBLEM  slurm, reached: --on slurm: the jobs were refused: " in broken.out
    assert "Mend the profile" in broken.out
