from __future__ import annotations

from collections import Counter

from unlearnbench.datasets.builtin.cifar100 import GROUPS, SUPERCLASSES


def test_every_class_has_a_group_of_five() -> None:
    assert len(SUPERCLASSES) == 100
    assert set(Counter(SUPERCLASSES).values()) == {5}
    assert len(GROUPS) == 20


def test_the_first_ten_and_the_last_ten_are_the_coarse_labels_of_the_official_files() -> None:
    assert SUPERCLASSES[:10] == (4, 1, 14, 8, 0, 6, 7, 7, 18, 3)
    assert SUPERCLASSES[-10:] == (18, 1, 2, 15, 6, 0, 17, 8, 14, 13)
