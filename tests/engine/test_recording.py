"""With which plan a run goes on in an output folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.manifests import manifest_text, write_manifest

from unlearnbench.engine.executor import finish
from unlearnbench.engine.recording import PART, cell_states, finished_records, plan_for, stage_names
from unlearnbench.experiment.plan import make_plan
from unlearnbench.experiment.resolve import Resolved, resolve
from unlearnbench.store import Store


@pytest.fixture
def resolved(tmp_path: Path) -> Resolved:
    return resolve(write_manifest(tmp_path, manifest_text()))


def test_a_new_folder_takes_the_precision_of_the_device(resolved: Resolved, tmp_path: Path) -> None:
    said: list[str] = []
    assert plan_for(resolved, tmp_path / "runs", "bfloat16", say=said.append).precision == "bfloat16"
    assert plan_for(resolved, tmp_path / "runs", "float32", say=said.append).precision == "float32"
    assert said == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_folder_of_another_machine_goes_on_in_its_precision_and_nothing_is_made_again(
    resolved: Resolved, tmp_path: Path
) -> None:
    output = tmp_path / "runs"
    done = finish(make_plan(resolved, precision="float32"), output, "cpu")
    said: list[str] = []
    plan = plan_for(resolved, output, "bfloat16", say=said.append)
    assert plan.precision == "float32"
    assert len(finished_records(plan, output, Store(output / "store"))) == len(done) == len(plan.cells)
    assert said == [
        f"{resolved.file}: the models in {output} were made in float32, and the run goes on in it; "
        "this machine would choose bfloat16, which takes a new output folder"
    ]


def test_a_cell_is_as_far_as_its_job_or_those_of_its_parts_that_run(resolved: Resolved, tmp_path: Path) -> None:
    plan = plan_for(resolved, tmp_path / "runs", "float32")
    original, fdr, _ = plan.cells
    turns = {f"{stage_names(original)[0]}{PART}{name}": name for name in ("running", "queued")}
    jobs = {**turns, stage_names(fdr)[1]: "queued", "of-another-run": "lost"}
    assert list(cell_states(plan, tmp_path / "runs", jobs).values()) == ["running", "queued", "waiting"]


def test_a_precision_that_the_manifest_names_is_kept(tmp_path: Path) -> None:
    text = manifest_text().replace("padding = 1", 'padding = 1\nprecision = "bfloat16"')
    plan = plan_for(resolve(write_manifest(tmp_path, text)), tmp_path / "runs", "float32")
    assert plan.precision == "bfloat16"
