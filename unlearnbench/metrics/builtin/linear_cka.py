"""Linear CKA: how similar two models' features of the same images are."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unlearnbench.errors import MetricError
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import References, require_finite


def debiased_linear_cka(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return debiased linear CKA of two sets of features of the same images, computed over all images at once.

    The unbiased estimator HSIC_1 (Song et al., 2012) is used with Gram matrices K = X X' and L = Y Y' whose diagonals
    are set to 0:

        HSIC_1 = [tr(K L) + 1'K1 1'L1 / ((N-1)(N-2)) - 2 / (N-2) 1'K L1] / (N (N-3))
        CKA = HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L))

    No N x N matrix is built: every term follows from X'Y, row sums and squared norms, in O(N D^2).

    Args:
        first: (N, D) features, N > 3.
        second: (N, E) features.

    Returns:
        A number of at most 1; close to 0, perhaps a little below, for unrelated features.

    Raises:
        MetricError: If N is below 4 or differs, a feature is not finite, or all features of a model are alike.
    """
    if len(first) != len(second) or len(first) < 4:
        raise MetricError(f"CKA needs the same images, at least 4: {len(first)} and {len(second)} given")
    require_finite(features=first, reference_features=second)
    x, y = _scaled(first), _scaled(second)
    both, own, other = _unbiased_hsic(x, y), _unbiased_hsic(x, x), _unbiased_hsic(y, y)
    if own <= 0 or other <= 0:
        raise MetricError("the features do not differ between images: CKA has no scale")
    return float(both / np.sqrt(own * other))


def _scaled(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return features with mean 0 and overall spread 1, which leaves CKA as it is and reduces rounding errors."""
    centred = features.astype(np.float64)
    centred -= centred.mean(axis=0)
    spread = np.sqrt((centred**2).mean())
    if spread <= 1e-12 * max(1.0, float(np.abs(features).max())):
        raise MetricError("the features do not differ between images: CKA has no scale")
    scaled: NDArray[np.float64] = centred / spread
    return scaled


def _unbiased_hsic(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    n = len(x)
    squares_x, squares_y = (x**2).sum(axis=1), (y**2).sum(axis=1)
    # These are the row sums of the Gram matrices without their diagonals.
    rows_x, rows_y = x @ x.sum(axis=0) - squares_x, y @ y.sum(axis=0) - squares_y
    trace = ((x.T @ y) ** 2).sum() - (squares_x * squares_y).sum()
    totals = rows_x.sum() * rows_y.sum() / ((n - 1) * (n - 2))
    return float((trace + totals - 2 / (n - 2) * (rows_x * rows_y).sum()) / (n * (n - 3)))


def linear_cka(
    features: FeatureFile,
    references: References,
    *,
    reference: Literal["original", "fdr"] = "original",
    images: Literal["forget", "retain"] = "forget",
) -> float:
    """Linear CKA (debiased, over the whole set) of the features to those of a reference model.

        CKA = HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L)), K and L the linear Gram matrices

    Args:
        features: The judged model's features.
        references: Feature files of Original and FDR of the same seed.
        reference: Model to compare with: `original`, or `fdr` (FDR).
        images: Test images of the `forget` or of the `retain` classes.

    Returns:
        At most 1 (the same up to rotation and scale), about 0 for unrelated features. A class that is forgotten looks
        on forget images as it does with FDR: less like Original than the method's retain images are.

    Raises:
        MetricError: If there are fewer than 4 images, a feature is not finite, or all features are alike.

    Source: Kornblith et al., ICML 2019; debiased as in Nguyen, Raghu, Kornblith, ICLR 2021, but not in mini-batches.
    Known weakness: it is dominated by the few directions of largest spread, and two trainings of one recipe differ too.
    """
    judged_against = references.original if reference == "original" else references.fdr
    classes = features.classes(images)
    return debiased_linear_cka(features.rows("test/features", classes), judged_against.rows("test/features", classes))
