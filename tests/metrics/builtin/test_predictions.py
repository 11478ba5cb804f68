"""Prediction matrix, prediction entropy and Jensen-Shannon divergence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import confusion_matrix
from support.feature_files import blobs, feature_file, one_hot

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.predictions import (
    class_probabilities,
    entropy,
    jensen_shannon,
    js_divergence,
    prediction_counts,
    prediction_entropy,
    prediction_matrix,
    retain_output_entropy,
    retain_output_scatter,
)
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import References


def predicting(predicted: list[int], labels: list[int], forget: list[int], width: int) -> FeatureFile:
    return feature_file(
        np.zeros((len(labels), 2)), labels, forget=forget, num_classes=width, logits=one_hot(predicted, width),
        limited=(np.zeros((width, 2)), range(width)), full=(np.zeros((width, 2)), range(width)),
    )  # fmt: skip


def test_counts_are_scikit_learns_confusion_matrix() -> None:
    generator = np.random.default_rng(0)
    labels, predicted = generator.choice([2, 5, 6], 200), generator.integers(0, 8, 200)

    reference = confusion_matrix(labels, predicted, labels=range(8))[[2, 5, 6]]
    assert (prediction_counts(predicted, labels, np.array([2, 5, 6]), np.arange(8)) == reference).all()


def test_the_matrix_by_hand() -> None:
    found = prediction_matrix(predicting([0, 0, 1, 1, 3, 3], [2, 2, 2, 2, 3, 3], [2, 3], 4))

    # Half of class 2 goes to 0 and half to 1, which gives log 2 / log 4 = 1/2; class 3 stays together, which gives 0.
    assert found == pytest.approx(0.25)
    assert found.details["destinations"] == {"2": {"0": 0.5, "1": 0.5}, "3": {"3": 1.0}}


def test_only_the_most_frequent_destinations_are_listed() -> None:
    found = prediction_matrix(predicting([0, 1, 1, 2, 2, 2], [3] * 6, [3], 4), top=2)

    assert found.details["destinations"] == {"3": {"2": 0.5, "1": pytest.approx(1 / 3)}}


def test_ties_go_to_the_first_output() -> None:
    file = feature_file(np.zeros((1, 2)), [1], forget=[1], num_classes=2, logits=[[7.0, 7.0]],
                        limited=(np.zeros((2, 2)), [0, 1]))  # fmt: skip

    assert prediction_matrix(file).details["destinations"] == {"1": {"0": 1.0}}


def test_a_forget_class_without_images_is_named() -> None:
    with pytest.raises(MetricError, match=r"no test image of classes \[3\]"):
        prediction_matrix(predicting([0], [2], [2, 3], 4))


def test_a_single_output_has_no_matrix_and_no_entropy() -> None:
    file = feature_file(
        np.zeros((1, 2)), [1], forget=[1], num_classes=2, outputs=[0], logits=[[7.0]],
        limited=(np.zeros((2, 2)), [0, 1]), limited_logits=[[1.0], [1.0]], weight=np.ones((1, 2)),
    )  # fmt: skip

    for metric in (prediction_matrix, prediction_entropy):
        with pytest.raises(MetricError, match="single output"):
            metric(file)


def test_logits_that_are_no_numbers_are_named() -> None:
    file = feature_file(np.zeros((2, 2)), [1, 1], forget=[1], num_classes=2, logits=[[np.nan, 1.0], [0.0, 1.0]],
                        limited=(np.zeros((2, 2)), [0, 1]))  # fmt: skip

    for metric in (prediction_matrix, prediction_entropy):
        with pytest.raises(MetricError, match="1 of 2 rows of logits are not finite"):
            metric(file)


def test_entropy_is_scipys() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(6), size=40)

    assert entropy(rows) == pytest.approx(scipy_entropy(rows, axis=1))
    assert entropy(np.array([[1.0, 0.0]])).tolist() == [0.0]


def test_prediction_entropy_is_one_if_nothing_is_known_and_zero_if_all_is_sure() -> None:
    for logits, expected in (
        ([[0.0, 0.0, 0.0]], 1.0),
        ([[0.0, 1e3, 0.0]], 0.0),
        ([[0.0, 0.0, -1e3]], np.log(2) / np.log(3)),
    ):
        file = feature_file(np.zeros((1, 2)), [2], forget=[2], num_classes=3, logits=logits,
                            limited=(np.zeros((3, 2)), range(3)))  # fmt: skip
        assert prediction_entropy(file) == pytest.approx(expected)


def test_probabilities_by_class_put_zero_where_there_is_no_output() -> None:
    found = class_probabilities(np.array([[0.0, np.log(3.0)]]), np.array([0, 2]), np.array([0, 1, 2]))

    assert found == pytest.approx(np.array([[0.25, 0.0, 0.75]]))


def copied_form(p: torch.Tensor, q: torch.Tensor) -> float:
    """Return what three public unlearning repositories compute."""
    m = (p + q) / 2
    return float(0.5 * torch.nn.functional.kl_div(p.log(), m) + 0.5 * torch.nn.functional.kl_div(q.log(), m))


def test_js_divergence_is_the_square_of_scipys_distance() -> None:
    p, q = np.random.default_rng(0).dirichlet(np.ones(10), size=(2, 50))

    assert jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, axis=1) ** 2)


@pytest.mark.filterwarnings("ignore:reduction")
def test_a_case_where_the_copied_form_is_wrong() -> None:
    p, q = np.array([[0.7, 0.1, 0.1, 0.1]]), np.array([[0.1, 0.1, 0.1, 0.7]])

    # m = (0.4, 0.1, 0.1, 0.4): KL(p || m) = 0.7 log(7/4) + 0.1 log(1/4), and the same for q.
    assert jensen_shannon(p, q)[0] == pytest.approx(0.7 * np.log(7 / 4) + 0.1 * np.log(1 / 4))
    assert jensen_shannon(p, q)[0] == pytest.approx(0.253, abs=5e-4)
    assert copied_form(torch.tensor(p), torch.tensor(q)) == pytest.approx(0.083, abs=5e-4)


def test_equal_outputs_are_at_zero_and_disjoint_ones_at_log_two() -> None:
    p, q = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])

    assert jensen_shannon(p, p)[0] == 0.0
    assert jensen_shannon(p, q)[0] == pytest.approx(np.log(2))


def test_an_output_that_was_deleted_counts_as_probability_zero() -> None:
    features, labels = blobs(0, 3, 5, 4)
    full = feature_file(features, labels, forget=[2], num_classes=3, logits=np.zeros((15, 3)))
    cut = feature_file(features, labels, forget=[2], num_classes=3, outputs=[0, 1], logits=np.zeros((15, 2)))

    expected = jensenshannon([1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]) ** 2
    assert js_divergence(cut, References(full, full)) == pytest.approx(expected)
    assert js_divergence(full, References(full, cut)) == pytest.approx(expected)


def test_large_logits_do_not_overflow() -> None:
    features, labels = blobs(0, 3, 5, 4)
    logits = 1e4 * np.eye(3)[labels]
    file = feature_file(features, labels, forget=[2], num_classes=3, logits=logits)

    assert js_divergence(file, References(file, file), images="retain") == 0.0


def test_js_divergence_names_logits_that_are_no_numbers() -> None:
    features, labels = blobs(0, 3, 5, 4)
    bad = feature_file(features, labels, forget=[2], num_classes=3, logits=np.full((15, 3), np.nan))

    with pytest.raises(MetricError, match="5 of 5 rows of logits are not finite"):
        js_divergence(bad, References(bad, bad))


def test_js_divergence_needs_test_images_of_each_class() -> None:
    features, labels = blobs(0, 3, 5, 4)
    keep = labels != 2
    file = feature_file(features[keep], labels[keep], forget=[2], num_classes=3, limited=(features, labels))

    with pytest.raises(MetricError, match="there is no test image of these classes"):
        js_divergence(file, References(file, file))


def test_the_outputs_of_retain_classes_are_scipy_s_entropies() -> None:
    stream = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 12)
    logits = stream.normal(size=(60, 6)).astype(np.float32)
    file = feature_file(
        np.ones((60, 2)), labels, forget=[1, 4], num_classes=5, outputs=range(6), logits=logits,
        limited=(np.ones((5, 2)), range(5)),
        limited_logits=np.ones((5, 6)),
    )  # fmt: skip
    kept = logits[np.isin(labels, [1, 4])][:, [0, 2, 3]].astype(np.float64)
    truth = labels[np.isin(labels, [1, 4])]
    odds = np.exp(kept) / np.exp(kept).sum(axis=1, keepdims=True)
    assert retain_output_entropy(file) == pytest.approx(scipy_entropy(odds, axis=1, base=3).mean(), abs=1e-9)

    counts = confusion_matrix(truth, np.array([0, 2, 3])[kept.argmax(axis=1)], labels=range(5))[[1, 4]][:, [0, 2, 3]]
    assert retain_output_scatter(file) == pytest.approx(scipy_entropy(counts, axis=1, base=3).mean(), abs=1e-9)


def test_a_deleted_or_an_added_output_changes_nothing_for_retain_outputs() -> None:
    """Of two images of class 2 one goes to 0 and one to 1: log 2 / log 2 = 1, whatever the other outputs say."""
    logits = [[1.0, 0.0, 9.0, 5.0], [0.0, 1.0, 9.0, 5.0]]
    values = set()
    for outputs in ([0, 1], [0, 1, 2], [0, 1, 2, 3]):
        file = feature_file(
            np.ones((2, 2)), [2, 2], forget=[2], num_classes=3, outputs=outputs,
            logits=[row[: len(outputs)] for row in logits], limited=(np.ones((3, 2)), range(3)),
            limited_logits=np.ones((3, len(outputs))),
        )  # fmt: skip
        assert retain_output_scatter(file) == 1.0
        values.add(round(retain_output_entropy(file), 12))
    odds = np.exp(1) / (1 + np.exp(1))
    assert values == {round(float(scipy_entropy([odds, 1 - odds], base=2)), 12)}


def test_one_retain_output_is_too_few() -> None:
    file = predicting([0, 1], [0, 1], [1], 2)
    with pytest.raises(MetricError, match="the model has 1 outputs for retain classes; 2 are needed"):
        retain_output_entropy(file)
