from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from support.feature_files import feature_file, one_hot

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.accuracy import near_class_gap, nearest_classes
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import References

# Four classes on a line; 3 is forgotten and 2 stands nearest to it.
PLACES = np.array([[0.0], [1.0], [5.0], [6.0]])
LABELS = np.array([0, 0, 1, 1, 2, 2, 3, 3])


def judged(predicted: list[int], superclasses: tuple[int, ...] = ()) -> FeatureFile:
    return feature_file(
        PLACES[LABELS], LABELS, forget=[3], num_classes=4, logits=one_hot(predicted, 4), superclasses=superclasses
    )


def test_nearest_classes_are_those_of_scikit_learn() -> None:
    prototypes = np.random.default_rng(0).normal(size=(30, 4))
    forget, retain = np.arange(25, 30), np.arange(25)
    reference = NearestNeighbors(n_neighbors=3).fit(prototypes[retain]).kneighbors(prototypes[forget])[1]

    assert nearest_classes(prototypes, forget, retain, 3).tolist() == sorted(set(reference.ravel().tolist()))


def test_equally_near_classes_count_in_their_order() -> None:
    assert nearest_classes(np.array([[-1.0], [1.0], [0.0]]), np.array([2]), np.array([0, 1]), 1).tolist() == [0]


def test_by_hand() -> None:
    original, after = judged(LABELS.tolist()), judged([0, 0, 1, 1, 2, 0, 0, 0])

    found = near_class_gap(after, References(original, original))

    assert found == 0.5 - 1.0
    assert found.details == {
        "near": 0.5, "rest": 1.0, "original_gap": 0.0, "neighbours": "prototypes", "near_classes": [2],
    }  # fmt: skip


def test_superclasses_decide_where_there_are_some() -> None:
    file = judged([1, 0, 1, 1, 2, 2, 0, 0], superclasses=(9, 4, 4, 9))

    found = near_class_gap(file, References(file, file))

    assert found.details["near_classes"] == [0]
    assert found == 0.5 - 1.0


def test_a_whole_superclass_that_is_forgotten_leaves_the_prototypes() -> None:
    file = judged(LABELS.tolist(), superclasses=(4, 4, 4, 9))

    assert near_class_gap(file, References(file, file)).details["neighbours"] == "prototypes"
    with pytest.raises(MetricError, match="by superclass 0 retain classes are near and 3 are not"):
        near_class_gap(file, References(file, file), neighbours="superclass")


def test_without_superclasses_they_cannot_be_asked_for() -> None:
    file = judged(LABELS.tolist())

    with pytest.raises(MetricError, match="the data set has no superclasses"):
        near_class_gap(file, References(file, file), neighbours="superclass")


def test_both_sides_are_needed() -> None:
    file = judged(LABELS.tolist())

    with pytest.raises(MetricError, match="by prototypes 3 retain classes are near and 0 are not"):
        near_class_gap(file, References(file, file), count=3)


def test_logits_that_are_no_numbers_are_named() -> None:
    original = judged(LABELS.tolist())
    broken = feature_file(PLACES[LABELS], LABELS, forget=[3], num_classes=4, logits=np.full((8, 4), np.nan))

    with pytest.raises(MetricError, match="2 images have logits that are no number"):
        near_class_gap(broken, References(original, original))
