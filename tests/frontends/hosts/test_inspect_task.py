"""Runs hosted by Inspect: the same cells, the same store, and Inspect's own logs."""

import os
import statistics
from pathlib import Path

import pytest
from conftest import FinishedRun
from support.commands import Done, cli, python
from support.manifests import ERWP, FOLNRC, manifest_text, write_manifest
from support.paths import REPOSITORY
from support.records import record_files, small_board, with_changes, write_records

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed: pip install 'unlearnbench[inspect]'")

import inspect_ai
from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalLog, read_eval_log

from unlearnbench.errors import UnlearnBenchError
from unlearnbench.experiment.resolve import resolve
from unlearnbench.frontends.hosts.inspect_logs import write_inspect_logs
from unlearnbench.frontends.hosts.inspect_task import SOLVERS, _number, chosen_method, fractions
from unlearnbench.registry.entry_points import names
from unlearnbench.results.records.files import read_record
from unlearnbench.results.records.load import load_records

pytestmark = pytest.mark.slow


def inspect_eval(manifest: Path, output: Path, logs: Path, *arguments: str) -> Done:
    """Run `inspect eval` in a process of its own, as a user does."""
    return python(
        "-m",
        "inspect_ai",
        "eval",
        "unlearnbench/unlearn",
        *("-T", f"manifest={manifest}", "-T", f"output={output}", "-T", "device=cpu"),
        *("--model", "none", "--display", "plain", "--log-dir", str(logs)),
        *arguments,
        path=Path(os.environ.get("PYTHONPATH", REPOSITORY)),
    )


def only_log(folder: Path) -> EvalLog:
    (path,) = folder.glob("*.eval")
    return read_eval_log(str(path))


def test_inspect_eval_runs_a_method_over_the_seeds_and_shares_the_store(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, manifest_text(FOLNRC, head="seeds = [0, 1]"))
    done = inspect_eval(manifest, tmp_path / "runs", tmp_path / "logs", "--solver", "unlearnbench/folnrc")
    assert done.code == 0, done.out + done.err
    log = only_log(tmp_path / "logs")
    assert (log.status, log.eval.solver, log.eval.model) == ("success", "unlearnbench/folnrc", "none/none")
    files = record_files(tmp_path / "runs")
    records = [read_record(files[f"folnrc/seed-{seed}.json"]) for seed in (0, 1)]
    assert log.samples is not None
    assert log.results is not None
    assert [sample.metadata["cell"] for sample in log.samples] == [record.cell for record in records]
    scores = {score.name: score.metrics for score in log.results.scores}
    for name in ("forget_accuracy", "forget_prototype_accuracy", "retain_accuracy"):
        values = [record.value(name) or 0.0 for record in records]
        assert scores[name]["mean"].value == pytest.approx(statistics.fmean(values))
        assert scores[name]["stderr"].value == pytest.approx(statistics.stdev(values) / 2**0.5)
    again = cli("run", manifest, "-o", tmp_path / "runs", "--device", "cpu")
    assert "all 6 cells are done already" in again.err


def test_a_value_that_one_seed_does_not_have_is_left_out_of_the_means(tmp_path: Path) -> None:
    samples = [Sample(input="", metadata={"values": {"held": 0.5, "position": value}}) for value in (None, 0.25)]
    task = Task(dataset=MemoryDataset(samples), solver=[], scorer=fractions())
    (log,) = inspect_ai.eval(task, model="none", display="none", log_dir=str(tmp_path))
    assert log.status == "success"
    assert log.results is not None
    means = {score.name: (score.metrics["mean"].value, score.scored_samples) for score in log.results.scores}
    assert means == {"held": (0.5, 2), "position": (0.25, 1)}


def test_a_solver_that_fails_is_an_error_of_its_sample_with_the_reason(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, manifest_text(FOLNRC))
    done = inspect_eval(
        manifest, tmp_path / "runs", tmp_path / "logs", "--solver", "unlearnbench/folnrc", "-S", "epoch=3"
    )
    assert done.code == 0, done.out + done.err
    (sample,) = only_log(tmp_path / "logs").samples or []
    assert sample.error is not None
    assert "folnrc has no option 'epoch'" in sample.error.message


@pytest.mark.parametrize(("given", "number"), [("1e-3", 1e-3), ("2E4", 2e4), ("adam", "adam"), (3, 3), ("e3", "e3")])
def test_numbers_that_yaml_takes_for_text_are_numbers(given: object, number: object) -> None:
    assert _number(given) == number


def test_every_installed_unlearner_is_a_solver() -> None:
    assert tuple(SOLVERS) == names("unlearners")


def test_a_solver_is_the_manifest_s_entry_and_its_arguments_are_options(tmp_path: Path) -> None:
    resolved = resolve(write_manifest(tmp_path, manifest_text(ERWP)))
    entry = chosen_method(resolved, "erwp", {})
    assert entry is resolved.methods[-1]
    changed = chosen_method(resolved, "erwp", {"beta": 3, "epochs": 4})
    assert changed.label == "erwp beta=3 epochs=4"
    assert changed.options == {**entry.options, "beta": 3.0, "epochs": 4}
    absent = chosen_method(resolved, "folnrc", {})
    assert (absent.label, absent.options["epochs"]) == ("folnrc", 10)
    with pytest.raises(UnlearnBenchError, match=r"^erwp has no option 'epoch'"):
        chosen_method(resolved, "erwp", {"epoch": 4})


def test_logs_of_finished_runs_hold_what_the_records_hold(finished: FinishedRun, tmp_path: Path) -> None:
    records = load_records(finished.output)
    paths = write_inspect_logs(records, tmp_path / "logs")
    assert [path.name for path in paths] == ["short_erwp.eval", "short_folnrc.eval", "short_wd.eval"]
    log = read_eval_log(str(paths[0]))
    own = [record for record in records if record.method.name == "erwp"]
    assert (log.eval.solver, log.eval.solver_args) == ("unlearnbench/erwp", own[0].method.options)
    assert [sample.metadata["cell"] for sample in log.samples or []] == [record.cell for record in own]
    (score,) = [score for score in log.results.scores if score.name == "retain_accuracy"]
    values = [record.value("retain_accuracy") or 0.0 for record in own]
    assert score.metrics["mean"].value == pytest.approx(statistics.fmean(values))
    assert score.metrics["stderr"].value == pytest.approx(statistics.stdev(values) / 2**0.5)


def test_exported_logs_have_every_seed_of_every_manifest_that_shares_a_cell(tmp_path: Path) -> None:
    first = [with_changes(record, manifest={"seeds": [0, 1]}) for record in small_board()]
    second = [with_changes(record, manifest_name="second", manifest={"seeds": [1]}) for record in first if record.seed]
    runs = write_records(tmp_path / "runs", [*first, *second])
    done = cli("export", runs, "--to", "inspect", "-o", tmp_path / "logs")
    assert done.code == 0, done.err
    names = [f"{manifest}_{method}.eval" for manifest in ("second", "small") for method in ("good", "lossy", "weak")]
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == names
    for manifest, seeds in (("small", [0, 1]), ("second", [1])):
        log = read_eval_log(str(tmp_path / "logs" / f"{manifest}_good.eval"))
        assert [sample.metadata["seed"] for sample in log.samples or []] == seeds
        assert log.eval.metadata == {"label": "good", "manifest": {"seeds": seeds}}
