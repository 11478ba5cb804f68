"""The digits, a data set that needs no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from unlearnbench.datasets.builtin import digits as module
from unlearnbench.datasets.dataset import open_dataset
from unlearnbench.errors import DatasetError

DIGITS = open_dataset("digits")


def test_images_and_labels_are_those_of_scikit_learn() -> None:
    loaded = load_digits()
    seen = []
    for part in (DIGITS.train(), DIGITS.test()):
        assert np.array_equal(part.labels, loaded.target[part.ids])
        expected = np.rint(loaded.images[part.ids] * 255 / 16).astype(np.uint8)[:, None]
        assert np.array_equal(part.images.read(np.arange(len(part.images))), expected)
        seen += part.ids.tolist()
    assert sorted(seen) == list(range(1797))


def test_one_image_of_a_class_in_four_is_a_test_image() -> None:
    targets = load_digits().target
    expected = [index for digit in range(10) for index in np.flatnonzero(targets == digit)[3::4]]
    assert DIGITS.test().ids.tolist() == sorted(expected)


def test_the_facts_are_those_of_the_images() -> None:
    info = DIGITS.info
    train, test = DIGITS.train(), DIGITS.test()
    assert info.train_counts == tuple(np.bincount(train.labels))
    assert info.test_counts == tuple(np.bincount(test.labels))
    assert train.images.shape == test.images.shape == info.shape == (1, 8, 8)
    intensities = train.images.read(np.arange(len(train.images))) / 255
    assert info.mean == (pytest.approx(intensities.mean(), abs=5e-4),)
    assert info.std == (pytest.approx(intensities.std(), abs=5e-4),)


def test_a_missing_file_is_named_with_what_brings_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sklearn"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(module, "find_spec", lambda name: type("Spec", (), {"origin": str(package / "__init__.py")}))
    module._revision.cache_clear()
    try:
        with pytest.raises(DatasetError) as caught:
            module.digits(tmp_path)
    finally:
        module._revision.cache_clear()
    assert str(caught.value) == (
        f"digits: {package}/datasets/data/digits.csv.gz is missing\n  pip install --force-reinstall scikit-learn"
    )
