"""FAe, CAne and the near-class gap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from sklearn.neighbors import NearestNeighbors
from support.feature_files import feature_file, one_hot, write_features_file

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.accuracy import (
    accuracy,
    forget_accuracy,
    masked_retain_accuracy,
    near_class_gap,
    nearest_classes,
    retain_accuracy,
)
from unlearnbench.metrics.features import FeatureFile, open_features
from unlearnbench.metrics.measurement import References


@pytest.mark.parametrize("outputs", [[0, 1, 2, 3, 4, 5], [0, 2, 3, 5], [0, 1, 2, 3, 4, 5, 6]])
def test_accuracy_is_that_of_scikit_learn(outputs: list[int]) -> None:
    random = np.random.default_rng(0)
    classes = np.array(outputs)
    logits = random.normal(size=(500, len(outputs))).astype(np.float32)
    labels = random.integers(6, size=500)
    expected = accuracy_score(labels, classes[logits.argmax(axis=1)])
    assert accuracy(logits, labels, classes) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected < 1


def test_accuracy_counted_by_hand() -> None:
    logits = np.array([[3, 1, 2], [0, 5, 4], [1, 1, 9], [7, 8, 6]], dtype=np.float32)
    assert accuracy(logits, np.array([0, 2, 2, 1]), np.arange(3)) == 0.75
    # The outputs stand for the classes 0, 4 and 7, so that rows 0 and 3 are right.
    assert accuracy(logits, np.array([0, 7, 2, 4]), np.array([0, 4, 7])) == 0.5


def test_of_equal_logits_the_lowest_class_counts() -> None:
    logits = np.array([[1, 1, 1], [0, 2, 2]], dtype=np.float32)
    assert accuracy(logits, np.array([0, 1]), np.arange(3)) == 1.0
    assert accuracy(logits, np.array([1, 2]), np.arange(3)) == 0.0


def test_an_infinite_logit_is_the_largest() -> None:
    logits = np.array([[0, np.inf], [-np.inf, 0]], dtype=np.float32)
    assert accuracy(logits, np.array([1, 1]), np.arange(2)) == 1.0


@pytest.mark.parametrize(
    ("logits", "labels", "outputs"),
    [((0, 3), 0, 3), ((2, 3), 3, 3), ((2, 3), 2, 4), ((2,), 2, 2)],
)
def test_arrays_that_do_not_fit_are_refused(logits: tuple[int, ...], labels: int, outputs: int) -> None:
    with pytest.raises(MetricError) as caught:
        accuracy(np.zeros(logits, np.float32), np.zeros(labels, np.int64), np.arange(outputs))
    assert str(caught.value) == (
        f"accuracy: logits {logits}, labels ({labels},) and outputs ({outputs},) do not fit (N, O), (N,) and (O,) "
        "with N > 0"
    )


def test_logits_that_are_no_number_are_refused() -> None:
    logits = np.array([[np.nan, np.nan], [0, 1], [np.nan, 3]], dtype=np.float32)
    with pytest.raises(MetricError) as caught:
        accuracy(logits, np.array([0, 1, 1]), np.arange(2))
    assert str(caught.value) == "accuracy: 2 images have logits that are no number"


def test_forget_and_retain_classes_are_judged_apart(tmp_path: Path) -> None:
    # One of the 2 images of the forget class 2 is right, and 2 of the 3 images of the classes 0 and 1.
    path = write_features_file(
        tmp_path / "features.h5",
        labels=[0, 2, 1, 2, 1],
        logits=[[5, 0, 0], [0, 0, 5], [0, 5, 0], [0, 5, 0], [0, 0, 5]],
        forget_classes=[2],
        num_classes=3,
    )
    with open_features(path) as features:
        assert forget_accuracy(features) == 0.5
        assert retain_accuracy(features) == pytest.approx(2 / 3)


def test_a_class_without_an_output_is_never_recognised(tmp_path: Path) -> None:
    path = write_features_file(
        tmp_path / "features.h5",
        labels=[0, 1, 2, 2],
        logits=[[5, 0], [0, 5], [5, 0], [0, 5]],
        forget_classes=[2],
        num_classes=3,
    )
    with open_features(path) as features:
        assert forget_accuracy(features) == 0.0
        assert retain_accuracy(features) == 1.0


def test_an_output_for_a_new_class_takes_part(tmp_path: Path) -> None:
    path = write_features_file(
        tmp_path / "features.h5",
        labels=[0, 1, 2],
        logits=[[5, 0, 0, 9], [0, 5, 0, 1], [0, 0, 5, 9]],
        forget_classes=[2],
        num_classes=3,
    )
    with open_features(path) as features:
        assert forget_accuracy(features) == 0.0
        assert retain_accuracy(features) == 0.5


def test_a_class_without_a_test_image_is_an_error(tmp_path: Path) -> None:
    path = write_features_file(
        tmp_path / "features.h5", labels=[0, 1], logits=[[5, 0, 0], [0, 5, 0]], forget_classes=[2], num_classes=3
    )
    with open_features(path) as features:
        with pytest.raises(MetricError) as caught:
            forget_accuracy(features)
        assert str(caught.value) == "no test image of classes [2]"
        assert retain_accuracy(features) == 1.0


# Four classes lie on a line; class 3 is the forget class and class 2 is nearest to it.
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


def test_near_class_gap_by_hand() -> None:
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


def test_near_class_gap_needs_both_sides() -> None:
    file = judged(LABELS.tolist())

    with pytest.raises(MetricError, match="by prototypes 3 retain classes are near and 0 are not"):
        near_class_gap(file, References(file, file), count=3)


def test_near_class_gap_names_logits_that_are_no_numbers() -> None:
    original = judged(LABELS.tolist())
    broken = feature_file(PLACES[LABELS], LABELS, forget=[3], num_classes=4, logits=np.full((8, 4), np.nan))

    with pytest.raises(MetricError, match="2 images have logits that are no number"):
        near_class_gap(broken, References(original, original))


def test_masked_retain_accuracy_is_scikit_learn_s_on_the_retain_columns() -> None:
    stream = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 20)
    logits = one_hot(labels, 5) + stream.normal(size=(100, 5))
    file = feature_file(np.ones((100, 2)), labels, forget=[1, 4], num_classes=5, logits=logits)
    retain = ~np.isin(labels, [1, 4])
    predicted = np.array([0, 2, 3])[logits.astype(np.float32)[retain][:, [0, 2, 3]].argmax(axis=1)]

    found = masked_retain_accuracy(file)
    assert found == pytest.approx(accuracy_score(labels[retain], predicted), abs=1e-9)
    assert found.hits is not None
    assert (found.hits == (predicted == labels[retain])).all()


def test_masked_retain_accuracy_by_hand() -> None:
    """One of four retain images goes to the forget class, and of the retain classes its own logit is the largest."""
    logits = [[3.0, 1.0, 2.0], [0.0, 3.0, 2.0], [1.0, 3.0, 2.0], [0.0, 0.0, 5.0]]
    whole = feature_file(np.ones((4, 2)), [0, 1, 0, 1], forget=[2], num_classes=3, logits=logits,
                         limited=(np.ones((3, 2)), [0, 1, 2]))  # fmt: skip
    deleted = feature_file(np.ones((4, 2)), [0, 1, 0, 1], forget=[2], num_classes=3, outputs=[0, 1],
                           logits=[row[:2] for row in logits], limited=(np.ones((3, 2)), [0, 1, 2]),
                           limited_logits=np.ones((3, 2)))  # fmt: skip

    # The last image has equal logits of both retain classes, of which the lowest counts: 2 of 4 are right.
    assert masked_retain_accuracy(whole) == masked_retain_accuracy(deleted) == 0.5


def test_without_a_retain_output_nothing_is_kept() -> None:
    file = feature_file([[0.0]], [0], forget=[1], num_classes=2, outputs=[1], logits=[[0.0]], limited=([[0.0]], [0]),
                        limited_logits=[[0.0]])  # fmt: skip
    with pytest.raises(MetricError, match="no output for a retain class"):
        masked_retain_accuracy(file)
