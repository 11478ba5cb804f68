from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.feature_files import blobs, feature_file, fill

from unlearnbench.errors import InvalidFileError, MetricError, PluginError
from unlearnbench.metrics import compute
from unlearnbench.metrics.builtin.accuracy import forget_accuracy
from unlearnbench.metrics.builtin.cost import relearn_cost
from unlearnbench.metrics.compute import Material, judge, metric_record, needs
from unlearnbench.metrics.features import FeatureFile, open_features
from unlearnbench.metrics.measurement import Costs, Measurement, Missing, References
from unlearnbench.metrics.standard import metric, standard_metrics
from unlearnbench.registry.component import Metric
from unlearnbench.registry.entry_points import find, names
from unlearnbench.terms import HEADLINE

FEATURES, LABELS = blobs(0, 5, 15, 6)


def file() -> FeatureFile:
    return feature_file(FEATURES, LABELS, forget=[3, 4], num_classes=5)


def material(features: FeatureFile | None = None) -> Material:
    noisy = feature_file(FEATURES + blobs(2, 5, 15, 6)[0], LABELS, forget=[3, 4], num_classes=5)
    costs = Costs({"forget": 1, "retain": 1}, {"forget": 0, "retain": 20})
    return Material(features or file(), References(file(), noisy), costs)


class FakePlugin:
    def __init__(self, function: Any) -> None:
        self.function = function

    def load(self) -> Any:
        return self.function


def judged_by(function: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(compute, "find", lambda kind, name: FakePlugin(function))
    return metric_record(Metric("own", {}, 1, "plugin", "1.0", (), "own"), material())


def test_every_standard_metric_has_a_value_on_good_features() -> None:
    found = judge(standard_metrics(), material())

    assert tuple(found)[:3] == HEADLINE
    reasons = {label: record.reason for label, record in found.items() if record.status == "failed"}
    assert reasons == {}


def test_every_registered_metric_stands_in_every_record_but_those_that_need_the_model() -> None:
    of_models = {
        "relearn_cost",
        "zeroed_accuracy",
        "attention_entropy",
        "attention_shift",
        "rounding_recovery",
        "pruning_recovery",
        "fine_tuning_recovery",
    }
    ours = {name for name in names("metrics") if find("metrics", name).distribution == "unlearnbench"}
    assert {standard.name for standard in standard_metrics()} == ours - of_models


def test_features_that_are_no_numbers_fail_with_a_reason_and_the_record_is_valid_json() -> None:
    features = FEATURES.copy()
    features[:] = np.nan
    broken = feature_file(features, LABELS, forget=[3, 4], num_classes=5, logits=np.full((75, 5), np.nan),
                          limited_logits=np.full((75, 5), np.nan))  # fmt: skip

    found = judge(standard_metrics(), material(broken))

    assert {label for label, record in found.items() if record.status == "done"} == {"speed_up"}
    for record in found.values():
        assert record.status == "done" or (record.value is None and record.reason)
        json.dumps(record.model_dump(mode="json"), allow_nan=False)


def test_without_references_the_metrics_that_need_them_say_so() -> None:
    found = judge(standard_metrics(), Material(file(), Missing("FDR failed"), Missing("FDR failed")))

    assert found["normalised_gap"].reason == "no references: FDR failed"
    assert found["speed_up"].reason == "no costs: FDR failed"
    assert found["forget_accuracy"].status == "done"


def test_a_metric_says_by_names_what_it_needs() -> None:
    assert needs(forget_accuracy) == ("features",)
    assert needs(relearn_cost) == ("features", "references", "model")
    with pytest.raises(PluginError, match="asks for 'weights'; there are features, references, costs, model"):
        needs(lambda features, weights: 0.0)


def test_a_metric_that_returns_a_plain_float_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged_by(lambda features: 0.25, monkeypatch)

    assert (found.status, found.value, found.details, found.hits) == ("done", 0.25, {}, None)


def test_details_stand_in_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged_by(lambda features: Measurement(0.5, {"a": [1, 2]}, np.array([True, False])), monkeypatch)

    assert found.details == {"a": [1, 2]}
    assert found.hits is not None
    assert found.hits.images == 2


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda features: float("nan"), r"the value is not finite (nan)"),
        (lambda features: float("inf"), r"the value is not finite (inf)"),
        (lambda features: Measurement(0.5, {"a": float("nan")}), "the details are no JSON values"),
        (lambda features: Measurement(0.5, hits=np.array([], dtype=np.bool_)), "it is a share of no test image"),
        (lambda features: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda model: 0.0, "no model: only a run has the model"),
        (lambda features, other: 0.0, "the metric asks for 'other'"),
    ],
)
def test_a_metric_that_cannot_be_computed_is_there_with_its_reason(
    function: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = judged_by(function, monkeypatch)

    assert (found.status, found.value) == ("failed", None)
    assert found.reason.startswith(reason)


def test_options_of_a_metric_are_checked() -> None:
    with pytest.raises(PluginError, match="has no option 'shot'"):
        metric("probe_recovery", {"shot": 1}, "probe")


def test_an_outsider_reads_a_file_with_h5py_alone(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "features.h5", "w") as stored:
        fill(stored, FEATURES, LABELS, forget=[3, 4], num_classes=5, superclasses=[0, 0, 1, 1, 1])

    with h5py.File(tmp_path / "features.h5") as stored:
        predicted = stored["output_classes"][:][stored["test/logits"][:].argmax(axis=1)]
        forget = np.isin(stored["test/labels"][:], stored.attrs["forget_classes"])
        by_hand = (predicted == stored["test/labels"][:])[forget].mean()
    with open_features(tmp_path / "features.h5") as features:
        assert forget_accuracy(features) == by_hand
        assert features.superclasses.tolist() == [0, 0, 1, 1, 1]
        assert features.attributes["dataset"] == "arrays"
        with pytest.raises(ValueError, match="read-only"):
            features.array("test/labels")[0] = 1


def test_rows_are_the_same_read_at_once_and_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "features.h5", "w") as stored:
        fill(stored, FEATURES, LABELS, forget=[3, 4], num_classes=5)
    with open_features(tmp_path / "features.h5") as features:
        at_once = features.rows("test/features", features.forget_classes)
    monkeypatch.setattr("unlearnbench.metrics.features.KEPT_BYTES", 0)
    monkeypatch.setattr("unlearnbench.metrics.features.CHUNK_ROWS", 1)
    with open_features(tmp_path / "features.h5") as features:
        assert (features.rows("test/features", features.forget_classes) == at_once).all()


def test_half_precision_features_are_read_as_float32(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "features.h5", "w") as stored:
        fill(stored, FEATURES, LABELS, forget=[3, 4], num_classes=5)
        del stored["test/features"]
        stored["test/features"] = FEATURES.astype(np.float16)
    with open_features(tmp_path / "features.h5") as features:
        assert features.rows("test/features", features.forget_classes).dtype == np.float32


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), "truncated, or not an HDF5 file"),
        (lambda path: path.write_text("hello"), "truncated, or not an HDF5 file"),
    ],
)
def test_a_file_that_is_none_is_named(damage: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    with h5py.File(path, "w") as stored:
        fill(stored, FEATURES, LABELS, forget=[3, 4], num_classes=5)
    damage(path)

    with pytest.raises(InvalidFileError, match=message), open_features(path):
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stored: stored.attrs.pop("format"), "not a feature file"),
        (
            lambda stored: stored.attrs.modify("format", 2),
            "feature format 2, this version reads 3; run",
        ),
        (lambda stored: stored.pop("test/logits"), "not a whole feature file: test/logits missing"),
        (lambda stored: stored.attrs.pop("seed"), "not a whole feature file: attribute seed missing"),
    ],
)
def test_a_foreign_file_is_named(change: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    with h5py.File(path, "w") as stored:
        fill(stored, FEATURES, LABELS, forget=[3, 4], num_classes=5)
        change(stored)

    with pytest.raises(InvalidFileError, match=message), open_features(path):
        pass


def test_a_metric_error_is_a_message_for_the_user() -> None:
    assert MetricError("x").exit_code == 2
