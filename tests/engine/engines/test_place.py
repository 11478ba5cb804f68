"""Where a plan is computed is read once, with each fault of a profile at its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unlearnbench.engine.engines.place import Place, Profile, place, read_profile
from unlearnbench.errors import InvalidFileError, UnlearnBenchError


def test_a_profile_is_read_and_what_it_leaves_out_has_a_default(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text('partition = "gpu"\ngpus = 0.5\nsetup = ["module load cuda"]\noptions = { qos = "long" }\n')
    profile = read_profile(path)
    assert profile == Profile(partition="gpu", gpus=0.5, setup=("module load cuda",), options={"qos": "long"})
    assert place("cpu", 3, "ray://head:10001", path) == Place("cpu", 3, "ray://head:10001", profile)


def test_all_faults_of_a_profile_are_told_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(
        'partition = "gpu"\ngpu = 1\nminutes = 0\njobs_at_once = true\ncpus = "2"\nmemory_gib = inf\n'
        'setup = "module load cuda"\noptions = { qos = "long", nice = 1.5 }\n'
    )
    with pytest.raises(InvalidFileError) as caught:
        read_profile(path)
    assert str(caught.value) == (
        f"{path}:2: gpu: no such key\n  Did you mean 'gpus'? Valid: account, cpus, gpus, jobs_at_once, memory_gib, "
        "minutes, options, partition, precision, resubmit, setup, stages_per_job\n"
        f"{path}:3: minutes: should be greater than or equal to 1, not 0\n"
        f"{path}:4: jobs_at_once: should be a valid integer, not True\n"
        f"{path}:5: cpus: should be a valid number, not '2'\n"
        f"{path}:6: memory_gib: should be a finite number, not inf\n"
        f"{path}:7: setup: should be a valid list, not 'module load cuda'\n"
        f"{path}:8: options.nice: should be text or a whole number, not 1.5"
    )


@pytest.mark.parametrize(
    ("on", "profile", "detach", "message"),
    [
        (
            "rya",
            False,
            False,
            "--on rya: no such engine\n  Did you mean 'ray'? Valid: HOST:PORT, local, ray, ray://HOST:PORT, slurm",
        ),
        ("local", True, False, "--profile: it says what a cluster gives a stage\n  Name the cluster with --on"),
        ("ray", False, True, "--detach: only jobs of Slurm can go on alone\n  Use it with --on slurm"),
    ],
)
def test_wrong_use_is_told(tmp_path: Path, on: str, profile: bool, detach: bool, message: str) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text("")
    with pytest.raises(UnlearnBenchError, match=f"^{re.escape(message)}$"):
        place("auto", None, on, path if profile else None, detach)
