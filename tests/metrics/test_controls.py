"""Controls: models with a known state must be shown as such by every metric that claims to see it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unlearnbench.metrics.compute import Material, judge
from unlearnbench.metrics.feature_writer import write_features
from unlearnbench.metrics.features import FeatureFile, open_features
from unlearnbench.metrics.measurement import Costs, References
from unlearnbench.metrics.standard import standard_metrics
from unlearnbench.models.classifier import classifier, keep_outputs
from unlearnbench.models.training import ReferenceTraining
from unlearnbench.terms import VIEWS
from unlearnbench.unlearners.toy_problem import (
    FORGET_CLASSES,
    NETWORK,
    NUM_CLASSES,
    RECIPE,
    SmallProblem,
    small_problem,
)

pytestmark = pytest.mark.slow

RANDOM = ("random 0", "random 1", "random 2")
APPEARANCE = ("wd", "head only")
SEES_FEATURES = (
    "forget_prototype_accuracy",
    "forget_prototype_accuracy prototypes=limited",
    "forget_prototype_accuracy distance=cosine",
    "forget_neighbour_accuracy",
    "forget_neighbour_accuracy neighbours=20 distance=cosine",
)


def fdr_model(problem: SmallProblem) -> nn.Module:
    """Return the FDR of the problem."""
    model = NETWORK.build(0, "fdr")
    labels = problem.data.train.labels
    positions = torch.nonzero(~torch.isin(labels, torch.tensor(FORGET_CLASSES))).flatten()
    ReferenceTraining(model, problem.data.train, positions, RECIPE, 0, "fdr").train()
    return model


def weight_deletion(problem: SmallProblem) -> nn.Module:
    """Return the original without the forget classes' outputs."""
    model = copy.deepcopy(problem.original)
    keep_outputs(model, problem.task().retain_classes)
    return model


def head_only_distillation(problem: SmallProblem) -> nn.Module:
    """Return the original with a classifier that learned the original's outputs without the forget classes.

    Everything below the classifier stays the same, as with a method that only seems to forget.
    """
    model, task = copy.deepcopy(problem.original), problem.task()
    (head,) = classifier(model).layers
    model.eval().requires_grad_(False)
    head.requires_grad_()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for images, _ in task.batches(40):
        with torch.no_grad():
            goal = problem.original(images).index_fill(1, task.forget_classes, -torch.inf).softmax(dim=1)
        loss = F.cross_entropy(model(images), goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@dataclass(frozen=True)
class Judged:
    """The standard metrics of each model, without those that have no value, and the reasons for these."""

    values: dict[str, dict[str, float]]
    reasons: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    problem, folder = small_problem(), tmp_path_factory.mktemp("controls")
    models = {
        "original": problem.original,
        "fdr": fdr_model(problem),
        "wd": weight_deletion(problem),
        "head only": head_only_distillation(problem),
        **{name: NETWORK.build(seed, "random") for seed, name in enumerate(RANDOM)},
    }
    with ExitStack() as opened:
        files = {name: opened.enter_context(open_features(_extracted(folder / name, model, problem)))
                 for name, model in models.items()}  # fmt: skip
        yield _judged(files)


def _extracted(path: Path, model: nn.Module, problem: SmallProblem) -> Path:
    data = problem.data
    limited = data.limited_positions((14,) * NUM_CLASSES, 0)
    attributes = {"model": path.name, "dataset": "digits", "dataset_revision": "1", "num_classes": NUM_CLASSES,
                  "forget_classes": FORGET_CLASSES, "seed": 0}  # fmt: skip
    write_features(path, model, (data.test, data.test_part.ids), (data.train, data.train_part.ids), limited, attributes)
    return path


def _judged(files: dict[str, FeatureFile]) -> Judged:
    references = References(files["original"], files["fdr"])
    costs = Costs({"forget": 0, "retain": 1}, {"forget": 0, "retain": 1})
    records = {name: judge(standard_metrics(), Material(file, references, costs)) for name, file in files.items()}
    return Judged(
        {name: {label: r.value for label, r in found.items() if r.value is not None}
         for name, found in records.items()},
        {name: {label: r.reason for label, r in found.items() if r.reason is not None}
         for name, found in records.items()},
    )  # fmt: skip


def test_all_metrics_can_be_computed_for_all_controls(judged: Judged) -> None:
    assert not any(judged.reasons.values())


@pytest.mark.parametrize("name", APPEARANCE)
def test_the_classifier_of_an_appearance_has_forgotten(judged: Judged, name: str) -> None:
    assert judged.values["original"]["forget_accuracy"] > 0.85
    assert judged.values[name]["forget_accuracy"] < 0.05
    assert judged.values[name]["retain_accuracy"] > judged.values["original"]["retain_accuracy"] - 0.02


@pytest.mark.parametrize("name", APPEARANCE)
@pytest.mark.parametrize("metric", SEES_FEATURES)
def test_an_appearance_has_its_classes_in_the_features_still(judged: Judged, name: str, metric: str) -> None:
    original, fdr, found = (judged.values[model][metric] for model in ("original", "fdr", name))

    assert original - fdr > 0.1
    assert found > original - 0.02


@pytest.mark.parametrize("name", APPEARANCE)
def test_the_normalised_gap_of_an_appearance_is_that_of_the_original(judged: Judged, name: str) -> None:
    assert judged.values[name]["normalised_gap"] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", APPEARANCE)
@pytest.mark.parametrize("view", VIEWS)
def test_an_appearance_lies_where_the_original_lies_in_every_view(judged: Judged, name: str, view: str) -> None:
    assert judged.values["fdr"][f"position view={view}"] == 0.0
    assert judged.values[name][f"position view={view}"] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", APPEARANCE)
def test_every_stage_of_an_appearance_is_the_original_s(judged: Judged, name: str) -> None:
    found, original = judged.values[name], judged.values["original"]

    for metric in ("layer_prototype_gap", "layer_probe_recovery"):
        assert found[metric] == pytest.approx(original[metric], abs=0.02)
        assert found[metric] > 0.05
    assert found["layer_cka reference=original images=forget"] > 0.99
    assert found["layer_cka reference=fdr images=forget"] < 0.8
    assert found["relative_verdict"] < 0
    assert found["representation_unlearning_score"] < judged.values["fdr"]["representation_unlearning_score"] - 0.2


@pytest.mark.parametrize("name", APPEARANCE)
@pytest.mark.parametrize("shots", [" shots=1", " shots=5", " shots=10", ""])
def test_a_probe_recovers_what_an_appearance_hides(judged: Judged, name: str, shots: str) -> None:
    original, found = (judged.values[model][f"probe_recovery{shots}"] for model in ("original", name))

    assert found > 0.15
    assert found > original - 0.02


@pytest.mark.parametrize("name", APPEARANCE)
def test_few_shots_bring_an_appearance_back(judged: Judged, name: str) -> None:
    assert judged.values[name]["few_shot_relearning"] > judged.values["fdr"]["few_shot_relearning"] + 0.1


@pytest.mark.parametrize("name", APPEARANCE)
def test_the_features_of_an_appearance_are_those_of_the_original(judged: Judged, name: str) -> None:
    metric = "linear_cka reference={} images=forget"

    assert judged.values[name][metric.format("original")] > 0.99
    assert judged.values["fdr"][metric.format("original")] < 0.8
    assert judged.values[name][metric.format("fdr")] < 0.8


@pytest.mark.parametrize("name", RANDOM)
def test_random_weights_look_damaged_not_forgotten(judged: Judged, name: str) -> None:
    found, fdr = judged.values[name], judged.values["fdr"]

    assert found["forget_accuracy"] < 0.6
    assert found["retain_accuracy"] < 0.3
    assert found["retain_prototype_accuracy"] < fdr["retain_prototype_accuracy"] - 0.1
    assert found["normalised_gap"] < 0
    assert min(found[f"position view={view}"] for view in VIEWS) < -0.5
    assert found["masked_retain_accuracy"] < judged.values["original"]["masked_retain_accuracy"] - 0.3
    assert found["forget_prototype_accuracy"] < fdr["forget_prototype_accuracy"]
    assert found["forget_neighbour_accuracy"] < fdr["forget_neighbour_accuracy"]
    assert found["js_divergence images=retain"] > 0.3
    assert found["prediction_entropy"] > 0.9


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("reference", ["original", "fdr"])
def test_random_weights_are_unlike_both_references_on_retain_images(judged: Judged, name: str, reference: str) -> None:
    metric = f"linear_cka reference={reference} images=retain"

    assert judged.values["original"]["linear_cka reference=fdr images=retain"] > 0.75
    assert judged.values[name][metric] < 0.6


def test_a_probe_finds_no_more_in_random_weights_than_in_fdr(judged: Judged) -> None:
    assert np.mean([judged.values[name]["probe_recovery"] for name in RANDOM]) < 0.05
