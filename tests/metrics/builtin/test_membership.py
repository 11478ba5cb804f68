from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from support.feature_files import feature_file

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.membership import (
    attack_inputs,
    cross_validated_accuracy,
    logistic_fit,
    membership_inference,
)
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import References


def test_the_fit_is_scikit_learns_logistic_regression() -> None:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(200, 4))
    targets = inputs @ [1.0, -2.0, 0.5, 0.0] + generator.normal(size=200) > 0.3
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(inputs, targets)

    assert logistic_fit(inputs, targets) == pytest.approx([*reference.coef_[0], reference.intercept_[0]], abs=1e-4)


def test_what_the_attacker_reads_by_hand() -> None:
    inputs = attack_inputs(np.array([[0.0, np.log(3.0)]]), np.array([0]), np.array([0, 1]))

    quarter, rest = np.log(0.25), np.log(0.75)
    assert inputs[0] == pytest.approx([quarter, rest, -0.25 * quarter - 0.75 * rest, quarter - rest])


def test_a_deleted_output_has_a_finite_logarithm() -> None:
    assert np.isfinite(attack_inputs(np.array([[1.0, 2.0]]), np.array([2]), np.array([0, 1]))).all()


def test_held_out_images_are_not_learned_from() -> None:
    # The inputs are noise that a fit on all images could memorise.
    generator = np.random.default_rng(0)
    inputs, members = generator.normal(size=(40, 30)), np.arange(40) % 2 == 0
    fold = np.repeat(np.arange(5), 8)

    assert cross_validated_accuracy(inputs, members, fold, np.zeros(40, dtype=np.int64)) < 0.75


def test_constant_inputs_decide_nothing() -> None:
    members = np.arange(20) % 2 == 0
    fold = np.repeat(np.arange(5), 4)

    found = cross_validated_accuracy(np.ones((20, 4)), members, fold, np.zeros(20, dtype=np.int64))

    assert found == pytest.approx(0.5)


def model(*, remembers: bool, members: int = 30, seed: int = 0) -> FeatureFile:
    """Return features of three classes; a model that remembers is sure of the training images of forget class 2."""
    generator = np.random.default_rng(1 + remembers)
    labels = {"test": np.tile([0, 1, 2], 40), "limited": np.tile([0, 1, 2], members)}
    logits = {part: generator.normal(size=(len(found), 3)) for part, found in labels.items()}
    if remembers:
        logits["limited"][labels["limited"] == 2, 2] += 8.0
    return feature_file(
        np.zeros((120, 2)), labels["test"], forget=[2], num_classes=3, logits=logits["test"],
        limited=(np.zeros((3 * members, 2)), labels["limited"]), limited_logits=logits["limited"], seed=seed,
    )  # fmt: skip


def test_a_model_that_remembers_is_caught_and_one_like_fdr_is_not() -> None:
    sure, fdr = model(remembers=True), model(remembers=False)

    found = membership_inference(sure, References(sure, fdr))

    assert found > 0.3
    assert found.details["members"] == 30
    assert found.details["judged"] > 0.9
    assert 0.3 < found.details["fdr"] < 0.7
    assert membership_inference(fdr, References(sure, fdr)) == 0.0


def test_an_attack_that_cannot_tell_original_from_fdr_has_no_power() -> None:
    sure, fdr = model(remembers=True), model(remembers=False)

    assert membership_inference(fdr, References(sure, fdr)).details["power"] is True
    assert membership_inference(fdr, References(fdr, fdr)).details["power"] is False
    # With two members even an attack without a mistake is within the luck of guessing: 1.96 * sqrt(0.5 / 4) is 0.69.
    few, other = model(remembers=True, members=2), model(remembers=False, members=2)
    assert membership_inference(few, References(few, other)).details["power"] is False


def test_two_images_of_each_kind_are_enough_and_one_is_not() -> None:
    two = model(remembers=True, members=2)
    one = model(remembers=True, members=1)

    assert membership_inference(two, References(two, two)) == 0.0
    with pytest.raises(MetricError, match="class 2 has 1 pairs of a training and a test image; 2 are needed"):
        membership_inference(one, References(one, one))


def test_logits_that_are_no_numbers_are_named() -> None:
    good = model(remembers=False)
    bad = feature_file(
        np.zeros((120, 2)), np.tile([0, 1, 2], 40), forget=[2], num_classes=3, logits=np.full((120, 3), np.nan)
    )

    with pytest.raises(MetricError, match="rows of logits are not finite"):
        membership_inference(bad, References(good, good))
