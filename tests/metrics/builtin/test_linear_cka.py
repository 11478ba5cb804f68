from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support.feature_files import blobs, feature_file

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.linear_cka import debiased_linear_cka, linear_cka
from unlearnbench.metrics.measurement import References


def hsic(k: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    """Return HSIC_1 as Song et al. (2012) write it, from whole Gram matrices."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    ones = np.ones(n)
    first = np.trace(k @ m)
    second = (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    third = 2 / (n - 2) * (ones @ k @ m @ ones)
    return float((first + second - third) / (n * (n - 3)))


def reference_cka(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def random(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(("images", "width", "other"), [(4, 2, 3), (30, 5, 7), (200, 64, 16)])
def test_it_is_the_formula_with_whole_gram_matrices(images: int, width: int, other: int) -> None:
    x = random(images, width) + 3.0
    y = random(images, other, seed=1) + x[:, :1]

    assert debiased_linear_cka(x, y) == pytest.approx(reference_cka(x, y), abs=1e-9)


def test_four_images_by_hand() -> None:
    x = np.array([[0.0], [0.0], [1.0], [1.0]])

    # K = xx' without its diagonal has only K_23 = K_32 = 1, so that HSIC_1(K, K) = (2 + 4/6 - 2/2 * 2) / 4 = 1/6.
    assert hsic(x @ x.T, x @ x.T) == pytest.approx(1 / 6)
    assert debiased_linear_cka(x, 5 - 2 * x) == pytest.approx(1.0)


def test_rotation_scale_and_shift_change_nothing() -> None:
    x = random(100, 8)
    rotation = np.linalg.qr(random(8, 8, seed=1))[0]

    assert debiased_linear_cka(x, 7 * x @ rotation + 100) == pytest.approx(1.0)


def test_unrelated_features_are_about_zero_where_the_plain_form_is_not() -> None:
    x, y = random(60, 50), random(60, 50, seed=1)
    centred = [z - z.mean(axis=0) for z in (x, y)]
    plain = ((centred[0].T @ centred[1]) ** 2).sum() / np.prod([np.linalg.norm(z.T @ z) for z in centred])

    assert abs(debiased_linear_cka(x, y)) < 0.1
    assert plain > 0.4


def test_large_offsets_do_not_drown_the_differences() -> None:
    x = random(50, 4)

    assert debiased_linear_cka(x + 1e4, x) == pytest.approx(1.0, abs=1e-6)


def test_features_that_are_all_alike_have_no_scale() -> None:
    with pytest.raises(MetricError, match="do not differ between images"):
        debiased_linear_cka(np.ones((10, 3)), random(10, 3))


def test_fewer_than_four_images_are_too_few() -> None:
    with pytest.raises(MetricError, match="at least 4: 3 and 3 given"):
        debiased_linear_cka(random(3, 2), random(3, 2))


def test_features_that_are_no_numbers_are_named() -> None:
    x = random(10, 3)
    x[4, 1] = np.nan

    with pytest.raises(MetricError, match="1 of 10 rows of features are not finite"):
        debiased_linear_cka(x, random(10, 3))


def test_the_options_choose_reference_and_images() -> None:
    features, labels = blobs(0, 4, 20, 6)
    other = blobs(1, 4, 20, 6)[0]
    judged, original, fdr = (
        feature_file(rows, labels, forget=[3], num_classes=4) for rows in (features, features, other)
    )
    references = References(original, fdr)

    forget, retain = labels == 3, labels != 3
    assert linear_cka(judged, references) == pytest.approx(1.0)
    assert linear_cka(judged, references, reference="fdr") == debiased_linear_cka(features[forget], other[forget])
    assert linear_cka(judged, references, reference="fdr", images="retain") == debiased_linear_cka(
        features[retain], other[retain]
    )
