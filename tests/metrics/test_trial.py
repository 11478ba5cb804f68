"""The metrics are judged: each must put networks of a known state where they belong, and no control may win."""

from __future__ import annotations

import pytest
from controls.models import HEAD_CONTROLS, OTHER_FDR, PROJECTION, RANDOM
from controls.page import page
from controls.trial import DISTANCE, Judged, Trial, judged_models, known_values, trials
from support.paths import REPOSITORY
from support.records import make_record, with_changes
from torch import nn

from unlearnbench.metrics.metric_record import MetricRecord
from unlearnbench.results.ranking import rank, rows_by_problem
from unlearnbench.results.rows import Row
from unlearnbench.terms import POSITIONS, VIEWS
from unlearnbench.unlearners.builtin.baselines import folnrc
from unlearnbench.unlearners.builtin.erwp import ErwpOptions, erwp
from unlearnbench.unlearners.task import UnlearningTask

pytestmark = pytest.mark.slow

SEEDS = (0, 1, 2)
# Each of these reads features, and has a word about them in reports.
SEES_FEATURES = (
    "forget_prototype_accuracy",
    "forget_prototype_accuracy distance=cosine",
    "normalised_gap",
    "probe_recovery shots=1",
    "forget_neighbour_accuracy neighbours=20 distance=cosine",
    "few_shot_relearning",
    "linear_cka reference=original images=forget",
    "forget_view_accuracy view=neighbours",
    "forget_view_accuracy view=probe",
    *POSITIONS.values(),
    "layer_prototype_gap",
    "layer_probe_recovery",
    "layer_cka reference=original images=forget",
    "representation_unlearning_score",
)
# These see outputs alone: a network with Original's features passes for one that forgot.
SEES_OUTPUTS = (
    "forget_accuracy",
    "adaptive_unlearning_score",
    "average_gap",
    "tug_of_war",
    "js_divergence images=forget",
)
# Features are Original's where their CKA to it is above this.
CHANGED = 0.9


def removal(model: nn.Module, task: UnlearningTask) -> nn.Module:
    options = ErwpOptions(augmentation="rotation", batch_size=16, learning_rate=1e-3, epochs=20)
    return erwp(model, task, options=options)


def fine_tuning(model: nn.Module, task: UnlearningTask) -> nn.Module:
    return folnrc(model, task, learning_rate=1e-3, epochs=5)


@pytest.fixture(scope="module")
def judged() -> Judged:
    return judged_models(SEEDS, {"erwp": removal, "folnrc": fine_tuning})


@pytest.fixture(scope="module")
def tried(judged: Judged) -> dict[str, Trial]:
    return {trial.metric: trial for trial in trials(known_values(judged))}


@pytest.mark.parametrize("metric", SEES_FEATURES)
def test_a_metric_of_features_flags_every_network_whose_features_are_untouched(
    tried: dict[str, Trial], metric: str
) -> None:
    assert tried[metric].flags_the_head
    assert [tried[metric].places[name] for name in HEAD_CONTROLS] == pytest.approx([1.0] * 3, abs=0.15)


@pytest.mark.parametrize("metric", SEES_OUTPUTS)
def test_a_metric_of_outputs_takes_an_untouched_network_for_one_that_forgot(
    tried: dict[str, Trial], metric: str
) -> None:
    assert tried[metric].tells
    assert set(HEAD_CONTROLS) <= set(tried[metric].misplaced)


def test_what_the_ranking_orders_by_has_fdr_first_then_untouched_features_then_damage(tried: dict[str, Trial]) -> None:
    """The largest of three noisy sizes is not 0 for a perfect method; it stays below that of untouched features."""
    places = tried[DISTANCE].places
    assert [places[name] for name in HEAD_CONTROLS] == pytest.approx([1.0] * 3)
    assert 0.0 < places[OTHER_FDR] < 0.9
    assert min(places[name] for name in (PROJECTION, RANDOM)) > 1.5


def test_by_its_signed_mean_each_view_has_fdr_of_another_seed_at_fdr(tried: dict[str, Trial]) -> None:
    assert max(abs(tried[metric].places[OTHER_FDR]) for metric in POSITIONS.values()) < 0.5


def test_one_view_alone_would_not_do(tried: dict[str, Trial]) -> None:
    """By neighbours a random network lies where FDR lies, which is why three views are asked."""
    alone = {view: tried[POSITIONS[view]].misplaced for view in VIEWS}
    assert RANDOM in alone["neighbours"]
    assert alone["prototype"] == alone["probe"] == []


def ranked(judged: Judged) -> dict[str, Row]:
    """Return the rows of records that hold what was judged, ranked."""
    labels = {"original": "original", "fdr": "fdr", "wd": "wd", "head distillation": "head_distillation"}
    labels |= {"untouched": "untouched", "erwp": "erwp", "folnrc": "folnrc", RANDOM: "random", PROJECTION: "projection"}
    labels[OTHER_FDR] = "second_fdr"
    records = [
        with_changes(make_record(label, seed), metrics=models[name])
        for seed, models in judged.items()
        for name, label in labels.items()
    ]
    (rows,) = rows_by_problem(records)
    return {row.label: row for row in rank(rows)}


def changed_the_features(metrics: dict[str, MetricRecord]) -> bool:
    value = metrics["layer_cka reference=original images=forget"].value
    return value is not None and value < CHANGED


def test_ranked_by_the_rule_every_control_comes_behind_every_method_that_changed_the_features(judged: Judged) -> None:
    rows = ranked(judged)
    assert {label for label, row in rows.items() if row.role == "control"} == {"wd", "head_distillation"}
    assert all(changed_the_features(models["erwp"]) for models in judged.values())
    assert not any(changed_the_features(models[name]) for models in judged.values() for name in HEAD_CONTROLS)

    distance = {label: row.judgement.distance for label, row in rows.items() if row.judgement}
    erwp_found = rows["erwp"].judgement
    assert erwp_found is not None
    assert (erwp_found.keep, erwp_found.forget) != ("failed", "failed")
    for control in ("wd", "head_distillation", "untouched"):
        found = rows[control].judgement
        assert found is not None
        # Nothing is amiss with its outputs, so that only the features can put it behind.
        assert (found.keep, found.forget) == ("passed", "passed")
        assert found.said.startswith(("residual (prototype, neighbours", "residual (all views)"))
        assert found.distance == pytest.approx(1.0, abs=0.05)
        assert distance["erwp"] is not None
        assert distance["erwp"] < found.distance


def test_by_the_relative_verdict_a_second_fdr_is_undecided_and_untouched_features_are_closer_to_original(
    judged: Judged,
) -> None:
    """Two retrained models agree on a part of the images only, as the legend says; three seeds decide nothing more."""
    found = {label: row.judgement for label, row in ranked(judged).items() if row.judgement}
    means = {label: one.relative[0] for label, one in found.items() if one.relative}
    assert means.keys() == found.keys()
    assert found["second_fdr"].closer_to == "undecided"
    assert max(means[label] for label in ("wd", "head_distillation", "untouched")) < min(-0.1, means["second_fdr"])


def test_a_ruined_network_has_no_rank_and_a_projected_one_is_last(judged: Judged) -> None:
    rows = ranked(judged)
    assert rows["random"].rank is None
    assert "it lost" in rows["random"].note
    projected, untouched = rows["projection"].judgement, rows["untouched"].judgement
    assert projected is not None
    assert untouched is not None
    assert projected.distance is not None
    assert untouched.distance is not None
    assert projected.distance > untouched.distance
    assert "damaged" in projected.said


def test_the_committed_page_tries_every_metric(judged: Judged) -> None:
    committed = (REPOSITORY / "leaderboard" / "METRICS.md").read_text("utf-8")
    values = known_values(judged)
    found = page(values, trials(values))
    names = [
        [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")] for text in (committed, found)
    ]
    assert names[0] == names[1]
