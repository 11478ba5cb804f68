"""Some classes of another data set."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from support.commands import cli
from support.manifests import ERWP, WD, manifest_text, write_manifest
from support.tiny_data import cifar_folders

from unlearnbench.datasets.add import add
from unlearnbench.datasets.builtin import cifar100
from unlearnbench.datasets.dataset import Part, open_dataset
from unlearnbench.errors import DatasetError

pytest_plugins = ["support.data_fixtures"]

THREE = {"of": "digits", "classes": ["7", "1", "4"]}


def images(part: Part) -> np.ndarray:
    return part.images.read(np.arange(len(part.labels)))


def test_it_has_the_images_of_its_classes_and_no_other() -> None:
    whole, some = open_dataset("digits"), open_dataset("class_subset", THREE)
    assert some.info.name == "digits-3-classes"
    assert some.info.class_names == ("1", "4", "7")
    assert some.info.revision == whole.info.revision
    for kept, every, counts in (
        (some.train(), whole.train(), some.info.train_counts),
        (some.test(), whole.test(), some.info.test_counts),
    ):
        rows = np.flatnonzero(np.isin(every.labels, [1, 4, 7]))
        assert np.array_equal(images(kept), images(every)[rows])
        assert np.array_equal(np.array([1, 4, 7])[kept.labels], every.labels[rows])
        assert np.array_equal(kept.ids, every.ids[rows])
        assert tuple(np.bincount(kept.labels)) == counts


def test_classes_of_cifar100_keep_their_superclasses(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = tuple(sorted(name for names in cifar100.GROUPS.values() for name in names))
    monkeypatch.setattr(cifar100, "find", functools.partial(cifar100.find, train_per_class=1, test_per_class=1))
    add("cifar100", [cifar_folders(tmp_path / "given", 1, 1, every)])
    some = open_dataset("class_subset", {"classes": ("wolf", "oak_tree", "bear")})
    assert some.info.class_names == ("bear", "oak_tree", "wolf")
    assert [list(cifar100.GROUPS)[group] for group in some.info.superclasses] == [
        "large_carnivores",
        "trees",
        "large_carnivores",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "digits", "classes": ["1"]}, "1 classes are named; name two or more classes of digits, each once"),
        (
            {"of": "digits", "classes": ["1", "1", "2"]},
            "'1' is named twice; name two or more classes of digits, each once",
        ),
        (
            {"of": "digits", "classes": ["1", "12"]},
            "digits has no class '12'\n  Did you mean '2'? Valid: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        ),
        (
            {"of": "class_subset", "classes": ["1", "2"]},
            "'class_subset' has no classes of its own; name the data set that has them",
        ),
    ],
)
def test_what_cannot_be_a_subset_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        open_dataset("class_subset", options)
    assert str(caught.value) == f"class_subset: {message}"


def test_a_data_set_that_is_not_here_can_still_be_planned(data: Path, tmp_path: Path) -> None:
    chosen = 'options = { of = "cifar100", classes = ["wolf", "apple", "bear", "lion"] }'
    text = manifest_text(WD, ERWP, dataset=f'[dataset]\nname = "class_subset"\n{chosen}')
    text = text.replace('["8", "9"]', '["lion"]')
    done = cli("run", write_manifest(tmp_path, text), "--dry-run", "--json")
    work = {row["what"]: row["image_passes"] for row in done.json[0]["work"]}
    assert work["train Original"] == 4 * 500 * work["train FDR"] // (3 * 500) > 0
    assert "dataset.name: cifar100 is not on this machine" in done.err


@pytest.mark.slow
def test_a_benchmark_runs_on_three_digits(tmp_path: Path) -> None:
    dataset = '[dataset]\nname = "class_subset"\noptions = { of = "digits", classes = ["1", "4", "7"] }'
    text = manifest_text(WD, dataset=dataset).replace('["8", "9"]', '["7"]')
    done = cli("run", write_manifest(tmp_path, text), "-o", tmp_path / "runs", "--device", "cpu")
    assert done.code == 0
    assert done.out.startswith("digits-3-classes / digits_net: forget 1 of 3 classes (7), limited data 10 % per class")
