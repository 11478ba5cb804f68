"""Who computes a plan: a display that stays readable, and the extra that an engine lacks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unlearnbench.engine.engines.crew import MOST_LANES, muster
from unlearnbench.engine.engines.place import Place, Profile
from unlearnbench.errors import UnlearnBenchError

DIGIT = (1, 8, 8)


@pytest.mark.parametrize(("cells", "lanes"), [(10_000, MOST_LANES), (3, 3)])
def test_many_jobs_have_as_many_lanes_as_can_be_read(cells: int, lanes: int, tmp_path: Path) -> None:
    place = Place("cpu", on="slurm", profile=Profile(jobs_at_once=500))
    crew = muster(place, DIGIT, cells, tmp_path, print)
    assert (crew.jobs, crew.lanes) == (500, lanes)


@pytest.mark.parametrize(
    ("on", "module", "message"),
    [
        ("ray", "ray", "--on ray needs Ray\n  pip install 'unlearnbench[ray]'"),
        ("slurm", "submitit", "--on slurm needs submitit\n  pip install 'unlearnbench[slurm]'"),
    ],
)
def test_an_engine_that_is_missing_names_its_extra(
    on: str, module: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnlearnBenchError) as caught:
        muster(Place("cpu", on=on), DIGIT, 1, tmp_path, print).engage((), print)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (Place("cuda", on="slurm"), "--device cuda: the profile asks for no GPU\n  Add gpus = 1 to it"),
        (Place("cuda5"), "--device cuda5: no such device\n  Valid: auto, cpu, cuda, cuda:N, mps"),
    ],
)
def test_a_device_that_is_not_there_is_told(place: Place, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnlearnBenchError) as caught:
        muster(place, DIGIT, 1, tmp_path, print)
    assert str(caught.value) == message
