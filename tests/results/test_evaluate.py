"""A finished run: its epochs, its costs, and its metrics recomputed from stored features."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from support.paths import REPOSITORY
from support.records import small_board, write_records
from torch import nn

from unlearnbench.errors import InvalidFileError
from unlearnbench.frontends.cli import main
from unlearnbench.metrics.features import open_features
from unlearnbench.metrics.measurement import Measurement
from unlearnbench.metrics.standard import standard_metrics
from unlearnbench.registry.entry_points import Plugin
from unlearnbench.results.evaluate import evaluate
from unlearnbench.results.leaderboard.build import build_leaderboard
from unlearnbench.results.ranking import rows_by_problem
from unlearnbench.results.records.files import read_record, write_record
from unlearnbench.results.records.load import load_records
from unlearnbench.results.records.record import Record, with_hash

pytestmark = pytest.mark.slow

MANIFEST = """
seeds = [0, 1]
evaluate_every = 1
dataset.name = "digits"
architecture = { name = "digits_net", options = { width = 4 } }
problem = { forget_classes = ["8", "9"], limited_share = 0.1 }
training = { epochs = 2, batch_size = 128, learning_rate = 0.1, schedule = "one_cycle", padding = 1 }
unlearners = [
    { name = "wd" },
    { name = "tslnrc", options = { epochs = 3 } },
    { name = "folmrcsc", options = { epochs = 2, learning_rate = 1e-3 } },
]
metrics = [{ name = "relearn_cost", options = { max_epochs = 2, learning_rate = 1e-2 } }]
"""
LABELS = ("original", "fdr", "wd", "tslnrc", "folmrcsc")
HEADLINE = ("forget_accuracy", "forget_prototype_accuracy", "retain_accuracy")


def cli(*arguments: str | Path) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of the command line, run in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = ["unlearnbench", *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="session")
def stored_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of a run, which tests read or copy."""
    folder = tmp_path_factory.mktemp("stored")
    (folder / "metrics.toml").write_text(MANIFEST)
    code, _, err = cli("run", folder / "metrics.toml", "-o", folder / "runs", "--device", "cpu")
    assert code == 0, err
    return folder / "runs"


@pytest.fixture
def own_run(stored_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run that a test may change."""
    return Path(shutil.copytree(stored_run, tmp_path / "runs"))


def paths(folder: Path) -> dict[str, Path]:
    return {f"{path.parent.name}/{path.stem[-1]}": path for path in (folder / "records").rglob("*.json")}


def records(folder: Path) -> dict[str, Record]:
    return {name: read_record(path) for name, path in paths(folder).items()}


def test_every_record_holds_every_standard_metric(stored_run: Path) -> None:
    wanted = {metric.label for metric in standard_metrics()} | {"relearn_cost"}

    for record in records(stored_run).values():
        assert set(record.metrics) == wanted
        assert all(metric.status == "done" or metric.reason for metric in record.metrics.values())


def test_references_are_judged_too(stored_run: Path) -> None:
    found = records(stored_run)

    assert found["original/0"].value("normalised_gap") == 1.0
    assert found["fdr/0"].value("normalised_gap") == 0.0
    assert found["fdr/0"].value("speed_up") == 1.0
    assert found["original/1"].value("linear_cka reference=original images=forget") == pytest.approx(1.0)


def test_costs_stand_in_the_record(stored_run: Path) -> None:
    record = records(stored_run)["folmrcsc/0"]
    fdr = records(stored_run)["fdr/0"]

    assert record.image_passes == {"forget": 2 * 28, "retain": 2 * 112}
    assert record.value("speed_up") == pytest.approx(sum(fdr.image_passes.values()) / 280)
    assert record.measured.speed_up_seconds == pytest.approx(
        fdr.measured.seconds["train"] / record.measured.seconds["unlearn"]
    )
    assert record.measured.peak_memory_bytes
    assert records(stored_run)["wd/0"].metrics["speed_up"].reason is not None


def test_each_epoch_has_the_headline_metrics_and_the_last_is_the_end(stored_run: Path) -> None:
    found = records(stored_run)

    assert [len(found[f"{label}/0"].epochs) for label in LABELS] == [0, 0, 0, 3, 2]
    for label in ("tslnrc", "folmrcsc"):
        record = found[f"{label}/1"]
        last = record.epochs[-1]
        assert [epoch.epoch for epoch in record.epochs] == list(range(1, len(record.epochs) + 1))
        assert last.image_passes == record.image_passes
        assert last.metrics == {metric: record.value(metric) for metric in HEADLINE}
        assert record.epochs[0].metrics != last.metrics


def test_looking_at_epochs_leaves_the_method_as_it_is_and_nothing_behind(stored_run: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.toml").write_text(MANIFEST.replace("evaluate_every = 1", "").replace("[0, 1]", "[0]"))
    shutil.copytree(stored_run / "store", tmp_path / "runs" / "store")
    code, _, err = cli("run", tmp_path / "metrics.toml", "-o", tmp_path / "runs", "--device", "cpu")

    assert code == 0, err
    for name, record in records(tmp_path / "runs").items():
        watched = records(stored_run)[name]
        assert record.files["model"].sha256 == watched.files["model"].sha256
        assert record.image_passes == watched.image_passes
        assert record.epochs == ()
    assert not list(stored_run.rglob("*.partial"))
    models = [path.name for path in (stored_run / "store" / "models").rglob("*") if path.is_file()]
    assert {name for name in models if not name.endswith(".lock")} == {"entry.json", "model.safetensors"}


def test_every_second_epoch_can_be_asked_for(stored_run: Path, tmp_path: Path) -> None:
    text = MANIFEST.replace("evaluate_every = 1", "evaluate_every = 2").replace("[0, 1]", "[0]")
    (tmp_path / "metrics.toml").write_text(text)
    shutil.copytree(stored_run / "store", tmp_path / "runs" / "store")
    cli("run", tmp_path / "metrics.toml", "-o", tmp_path / "runs", "--device", "cpu", "--only", "tslnrc")

    every = records(stored_run)["tslnrc/0"].epochs
    assert records(tmp_path / "runs")["tslnrc/0"].epochs == (every[1],)


def in_place_of(function: Any, monkeypatch: pytest.MonkeyPatch, stored_run: Path, folder: Path) -> Record:
    """Return the record of a function that runs in the place of tslnrc."""
    load = Plugin.load
    monkeypatch.setattr(Plugin, "load", lambda plugin: function if plugin.name == "tslnrc" else load(plugin))
    text = MANIFEST.replace("[0, 1]", "[0]").replace('"tslnrc", options = { epochs = 3 }', '"tslnrc", label = "own"')
    (folder / "metrics.toml").write_text(text)
    shutil.copytree(stored_run / "store", folder / "runs" / "store")
    cli("run", folder / "metrics.toml", "-o", folder / "runs", "--device", "cpu", "--only", "own")
    return records(folder / "runs")["own/0"]


def one_step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, rate: float) -> None:
    """Take a step of plain gradient descent."""
    nn.functional.cross_entropy(model(images), labels).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= rate * parameter.grad
                parameter.grad = None


def diverging(model: nn.Module, task: Any, *, epochs: int | None = None) -> nn.Module:
    """Train for two epochs, then diverge."""
    for epoch in range(3):
        for images, labels in task.batches(1):
            one_step(model, images, labels, 0.01)
        if epoch < 2:
            task.end_epoch(model)
        if epoch == 1:
            raise ZeroDivisionError("broken after two epochs")
    return model


def copying(model: nn.Module, task: Any, *, epochs: int | None = None) -> nn.Module:
    """Train a copy of the model without reporting it."""
    student = copy.deepcopy(model)
    for images, labels in task.batches(2):
        one_step(student, images, labels, 0.01)
    return student


def telling(model: nn.Module, task: Any, *, epochs: int | None = None) -> nn.Module:
    """Train a copy of the model and report it."""
    student = copy.deepcopy(model)
    for _ in range(2):
        for images, labels in task.batches(1):
            one_step(student, images, labels, 0.01)
        task.end_epoch(student)
    return student


def test_a_model_of_the_methods_own_making_has_epochs_if_the_task_is_told(
    monkeypatch: pytest.MonkeyPatch, stored_run: Path, tmp_path: Path
) -> None:
    record = in_place_of(telling, monkeypatch, stored_run, tmp_path)

    assert [epoch.epoch for epoch in record.epochs] == [1, 2]
    assert record.epochs[-1].metrics == {metric: record.value(metric) for metric in HEADLINE}


def test_features_in_half_precision_give_about_the_same_metrics(stored_run: Path, tmp_path: Path) -> None:
    text = MANIFEST.replace("evaluate_every = 1", 'evaluate_every = 1\nfeature_dtype = "float16"').replace(
        "[0, 1]", "[0]"
    )
    (tmp_path / "metrics.toml").write_text(text)
    shutil.copytree(stored_run / "store", tmp_path / "runs" / "store")
    cli("run", tmp_path / "metrics.toml", "-o", tmp_path / "runs", "--device", "cpu", "--only", "wd")

    half, whole = records(tmp_path / "runs")["wd/0"], records(stored_run)["wd/0"]
    with open_features(tmp_path / "runs" / half.files["features"].path) as features:
        assert features.attributes["feature_dtype"] == "float16"
        assert features.attributes["model_sha256"] == half.files["model"].sha256
        assert features.array("limited/features").dtype == "float16"
    assert half.value("forget_accuracy") == whole.value("forget_accuracy")
    for label in ("linear_cka reference=fdr images=forget", "forget_prototype_accuracy", "probe_recovery"):
        assert half.value(label) == pytest.approx(whole.value(label), abs=0.03)


def test_relearn_cost_counts_images_until_fdr_and_a_margin_are_reached(stored_run: Path) -> None:
    for name, record in records(stored_run).items():
        metric = record.metrics["relearn_cost"]
        assert metric.status == "done", name
        assert metric.value is not None
        assert metric.value <= 2 * 28
        assert metric.details["reached"] == (metric.details["forget_accuracy"] >= metric.details["goal"])
        assert metric.details["reached"] or metric.value == 2 * 28
    # Original recognises the classes without relearning anything.
    assert records(stored_run)["original/0"].value("relearn_cost") == 0.0


def test_evaluating_anew_changes_nothing(own_run: Path, stored_run: Path) -> None:
    code, out, err = cli("evaluate", own_run)

    assert code == 0, err
    assert re.search(r"10 records rewritten, \d+ metrics", err)
    assert "relearn_cost needs the model" in err
    assert "tslnrc" in out
    before = {name: path.read_bytes() for name, path in paths(stored_run).items()}
    assert {name: path.read_bytes() for name, path in paths(own_run).items()} == before


def test_a_metric_that_was_missing_or_wrong_is_put_right(own_run: Path, stored_run: Path) -> None:
    for path in paths(own_run).values():
        record = read_record(path)
        metrics = dict(record.metrics)
        del metrics["js_divergence images=forget"]
        metrics["forget_accuracy"] = metrics["forget_accuracy"].model_copy(update={"value": 0.123})
        write_record(with_hash(record.model_copy(update={"metrics": metrics})), path)

    assert cli("evaluate", own_run)[0] == 0
    assert records(own_run) == records(stored_run)


def test_one_metric_leaves_the_others_alone(own_run: Path) -> None:
    for path in paths(own_run).values():
        record = read_record(path)
        metrics = {label: metric.model_copy(update={"value": 9.0}) for label, metric in record.metrics.items()}
        write_record(with_hash(record.model_copy(update={"metrics": metrics})), path)

    code, out, err = cli("evaluate", own_run, "--metric", "linear_cka", "--metric", "probe_recovery shots=5")

    assert code == 0, err
    assert "linear_cka reference=fdr images=retain" in out
    for record in records(own_run).values():
        done = {label for label, metric in record.metrics.items() if metric.value != 9.0}
        assert done == {label for label in record.metrics if label.startswith("linear_cka")} | {
            "probe_recovery shots=5"
        }


def test_a_new_metric_is_added_from_features_alone(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Added:
        name, kind, target, module, attribute = "added", "metrics", "added:added", "added", "added"
        version, distribution, distribution_version, source = 1, "own", "2.0", (("added", "added"),)

        def load(self) -> Any:
            return lambda features, references: Measurement(0.5, {"classes": features.num_classes})

    names = ("metrics.compute", "metrics.standard", "results.evaluate")
    modules = [sys.modules[f"unlearnbench.{name}"] for name in names]
    known = {module: module.find for module in modules}
    for module, find in known.items():
        monkeypatch.setattr(
            module, "find", lambda kind, name, find=find: Added() if name == "added" else find(kind, name)
        )
    monkeypatch.setattr("unlearnbench.results.evaluate.names", lambda kind: ("added",))

    done = evaluate(own_run, ("added",), lambda line: None)

    assert (done.written, done.faults, done.labels) == (10, 0, ("added",))
    for record in records(own_run).values():
        assert record.value("added") == 0.5
        assert record.metrics["added"].details == {"classes": 10}
        assert record.metrics["added"].distribution == "own"


def test_a_label_that_one_record_has_is_no_metric_of_the_others(own_run: Path) -> None:
    path = paths(own_run)["wd/0"]
    record = read_record(path)
    mine = record.metrics["forget_accuracy"].model_copy(update={"value": 0.123})
    write_record(with_hash(record.model_copy(update={"metrics": {**record.metrics, "mine": mine}})), path)
    code, _, err = cli("evaluate", own_run, "--metric", "mine")
    assert code == 0, err
    assert "1 records rewritten" in err
    found = records(own_run)
    assert found["wd/0"].value("mine") == found["wd/0"].value("forget_accuracy")
    assert [name for name, record in found.items() if "mine" in record.metrics] == ["wd/0"]


def test_a_metric_that_needs_the_model_is_refused_before_a_record_is_touched(own_run: Path) -> None:
    before = {path: path.read_bytes() for path in paths(own_run).values()}
    code, out, err = cli("evaluate", own_run, "--metric", "attention_entropy")
    assert (code, out) == (2, "")
    assert err.startswith("--metric attention_entropy: needs the model, which only a run has\n")
    assert {path: path.read_bytes() for path in before} == before


def test_an_evaluated_run_is_still_a_finished_one(own_run: Path, stored_run: Path) -> None:
    cli("evaluate", own_run, "--metric", "membership_inference")
    code, _, err = cli("run", stored_run.parent / "metrics.toml", "-o", own_run, "--device", "cpu")

    assert code == 0
    assert "all 10 cells are done already" in err


def test_an_unknown_metric_is_refused_with_the_nearest_name(own_run: Path) -> None:
    code, _, err = cli("evaluate", own_run, "--metric", "linear_ckaa")

    assert code == 2
    assert "Did you mean 'linear_cka'?" in err


def test_missing_and_damaged_features_are_named_and_the_rest_is_done(own_run: Path) -> None:
    found = records(own_run)
    (own_run / found["wd/0"].files["features"].path).unlink()
    damaged = own_run / found["tslnrc/1"].files["features"].path
    damaged.write_bytes(damaged.read_bytes()[:-100])

    code, _, err = cli("evaluate", own_run, "--metric", "forget_accuracy")

    assert code == 1
    assert "no such file; run the manifest again" in err
    assert "content is not what the record was made from" in err or "truncated" in err
    assert "8 records rewritten" in err


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("features", "no such file; run the manifest again to make it\n  As they were: "),
        # As it is while a run has yet to write the reference's record.
        ("record", "holds no finished record of fdr with seed 0\n  As they were: "),
    ],
)
def test_without_a_reference_its_metrics_stay_as_they_are(
    own_run: Path, stored_run: Path, lost: str, said: str
) -> None:
    if lost == "features":
        (own_run / records(own_run)["fdr/0"].files["features"].path).unlink()
    else:
        paths(own_run)["fdr/0"].unlink()

    code, _, err = cli("evaluate", own_run)

    assert code == 1
    assert "wd, seed 0: " in err
    assert said in err
    assert (", speed_up" in err) == (lost == "record")
    before, after = records(stored_run), records(own_run)
    assert before.keys() - after.keys() == ({"fdr/0"} if lost == "record" else set())
    for name, record in after.items():
        assert record.metrics == before[name].metrics


def test_without_the_references_features_a_new_metric_of_theirs_fails_with_a_reason(own_run: Path) -> None:
    (own_run / records(own_run)["fdr/0"].files["features"].path).unlink()
    for path in paths(own_run).values():
        record = read_record(path)
        metrics = {label: metric for label, metric in record.metrics.items() if label != "normalised_gap"}
        write_record(with_hash(record.model_copy(update={"metrics": metrics})), path)

    cli("evaluate", own_run, "--metric", "normalised_gap", "--metric", "forget_accuracy")

    metrics = records(own_run)["wd/0"].metrics
    assert metrics["forget_accuracy"].status == "done"
    assert metrics["normalised_gap"].reason is not None
    assert metrics["normalised_gap"].reason.startswith("no references: ")
    assert records(own_run)["wd/1"].metrics["normalised_gap"].status == "done"


def test_json_has_interval_and_values_of_every_metric(own_run: Path) -> None:
    rows = json.loads(cli("evaluate", own_run, "--metric", "linear_cka", "--json")[1])

    row = next(row for row in rows if row["method"] == "tslnrc")
    cka = row["linear_cka reference=original images=forget"]
    assert set(cka) == {"mean", "std", "interval", "values"}
    assert cka["interval"][0] < cka["mean"] < cka["interval"][1]
    assert set(cka["values"]) == {"0", "1"}


def test_evaluating_needs_no_torch(stored_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(stored_run, tmp_path / "runs"))
    program = (
        "import sys; from pathlib import Path; from unlearnbench.results.evaluate import evaluate\n"
        f"done = evaluate(Path({str(folder)!r}), ('probe_recovery', 'linear_cka', 'membership_inference'), print)\n"
        "print(done.written, {'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.stdout == "10 set()\n", done.stderr


def test_the_table_ranks_by_paired_intervals(stored_run: Path) -> None:
    rows = rows_by_problem(load_records(stored_run))[0]

    assert [row.label for row in rows][:2] == ["original", "fdr"]
    assert all(row.rank is not None or row.note or row.is_reference for row in rows)


def test_the_readmes_examples_read_a_finished_run(
    stored_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (REPOSITORY / "unlearnbench" / "README.md").read_text().partition("## Reading the features")[2]
    with_reader, with_h5py = re.findall(r"```python\n(.*?)```", readme, re.S)
    monkeypatch.chdir(stored_run.parent)
    found = records(stored_run)

    exec(compile(with_reader, "README", "exec"), {})
    shown = dict(line.rsplit(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert len(shown) == 10
    for name, value in shown.items():
        record = found[name.replace(" ", "/")]
        assert float(value) == pytest.approx(record.value("forget_prototype_accuracy"))

    exec(compile(with_h5py.replace("ID", Path(found["fdr/0"].files["features"].path).parts[-2]), "README", "exec"), {})
    assert "forget_classes" in capsys.readouterr().out


def test_a_truncated_feature_file_is_named_and_made_again(own_run: Path, stored_run: Path) -> None:
    path = own_run / records(own_run)["wd/0"].files["features"].path
    path.write_bytes(path.read_bytes()[:-500])

    code, _, err = cli("run", stored_run.parent / "metrics.toml", "-o", own_run, "--device", "cpu")

    assert code == 0, err
    assert "features.h5 is damaged" in err
    assert path.read_bytes() == (stored_run / path.relative_to(own_run)).read_bytes()
    assert records(own_run)["wd/0"].metrics == records(stored_run)["wd/0"].metrics


def test_the_records_of_a_leaderboard_are_not_evaluated(tmp_path: Path) -> None:
    build_leaderboard([write_records(tmp_path / "runs", small_board())], tmp_path / "board")
    with pytest.raises(InvalidFileError) as caught:
        evaluate(tmp_path / "board")
    assert str(caught.value) == (
        f"{tmp_path}/board/records/problem.jsonl.xz: records of a leaderboard, which keep the values that were "
        "published\n"
        "  Give the output folder of a run"
    )
