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
    path.write_text('partition = "gpu"\ngpu = 1\nminutes = 0\n')
    with pytest.raises(InvalidFileError) as caught:
        read_profile(path)
    text = str(caught.value)
    assert f"{path}:2: gpu: no such key\n  Did you mean 'gpus'? Valid: account, cpus, gpus, " in text
    assert f"{path}:3: minutes: input should be greater than or equal to 1, not 0" in text


@pytest.mark.parametrize(
    ("on", "profile", "detach", "message"),
    [
        ("rya", False, False, "--on rya: no such engine\n  Valid: local, ray, slurm, ray://HOST:PORT, HOST:PORT"),
        ("local", True, False, "--profile: it says what a cluster gives a stage\n  Name the cluster with --on"),
        ("ray", False, True, "--detach: only jobs of Slurm can go on alone\n  Use it with --on slurm"),
    ],
)
def test_wrong_use_is_told(tmp_path: Path, on: str, profile: bool, detach: bool, message: str) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text("")
    with pytest.raises(UnlearnBenchError, match=f"^{re.escape(message)}$"):
        place("auto", None, on, path if profile else None, detach)
