from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from support.feature_files import blobs, feature_file

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.predictions import jensen_shannon, js_divergence
from unlearnbench.metrics.measurement import References


def copied_form(p: torch.Tensor, q: torch.Tensor) -> float:
    """What three public unlearning repositories compute."""
    m = (p + q) / 2
    return float(0.5 * torch.nn.functional.kl_div(p.log(), m) + 0.5 * torch.nn.functional.kl_div(q.log(), m))


def test_it_is_the_square_of_scipys_distance() -> None:
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


def test_logits_that_are_no_numbers_are_named() -> None:
    features, labels = blobs(0, 3, 5, 4)
    bad = feature_file(features, labels, forget=[2], num_classes=3, logits=np.full((15, 3), np.nan))

    with pytest.raises(MetricError, match="5 of 5 rows of logits are not finite"):
        js_divergence(bad, References(bad, bad))


def test_a_class_without_test_images_is_an_error() -> None:
    features, labels = blobs(0, 3, 5, 4)
    keep = labels != 2
    file = feature_file(features[keep], labels[keep], forget=[2], num_classes=3, limited=(features, labels))

    with pytest.raises(MetricError, match="there is no test image of these classes"):
        js_divergence(file, References(file, file))
