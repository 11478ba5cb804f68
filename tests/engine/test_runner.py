"""What a runner does when results of other cells are gone."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import torch
from conftest import FinishedRun
from rich.console import Console

from unlearnbench.engine.processes.fork_server import fork_server
from unlearnbench.engine.progress import Display
from unlearnbench.engine.recording import finished_records, plan_for
from unlearnbench.engine.runner import Runner
from unlearnbench.experiment.resolve import resolve
from unlearnbench.store import Store


def test_features_of_a_reference_that_were_removed_meanwhile_are_made_again(
    finished: FinishedRun, tmp_path: Path
) -> None:
    output = tmp_path / "runs"
    shutil.copytree(finished.output, output)
    store = Store(output / "store")
    plan = plan_for(resolve(finished.manifest), output, "float32")
    before = finished_records(plan, output, store)
    fdr, wd = (next(cell for cell in plan.cells if cell.method.name == name) for name in ("fdr", "wd"))
    shutil.rmtree(store.entry("features", fdr.features_id))
    with Display(Console(file=io.StringIO()), 1, 1, 1) as display:
        runner = Runner(plan, output, store, torch.device("cpu"), display.lanes[0], fork_server(1))
        assert runner.run_cell(wd).metrics == before[wd.id].metrics
    assert store.has("features", fdr.features_id)


def test_a_reference_that_died_is_not_made_again_for_each_method(finished: FinishedRun, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    store = Store(output / "store")
    plan = plan_for(resolve(finished.manifest), output, "float32")
    original, wd = (next(cell for cell in plan.cells if cell.method.name == name) for name in ("original", "wd"))
    with Display(Console(file=io.StringIO()), 1, 1, 1) as display:
        runner = Runner(plan, output, store, torch.device("cpu"), display.lanes[0], fork_server(1))
        runner.failed(original, "its process was killed by SIGKILL")
        record = runner.run_cell(wd)
    assert (record.status, record.reason) == ("failed", "Original of seed 0 failed: its process was killed by SIGKILL")
    assert not store.has("models", original.model_id)
