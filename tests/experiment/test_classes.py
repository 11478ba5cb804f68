"""Classes in a manifest: names and indices, of forget classes and of a checkpoint's outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.commands import cli
from support.manifests import WD, manifest_text, write_manifest
from support.tiny_data import class_tree

from unlearnbench.errors import ManifestError
from unlearnbench.experiment.problem import Problem
from unlearnbench.experiment.resolve import resolve
from unlearnbench.models.build import Network

NUMBERED = {str(number): 4 for number in range(12)}
ARCHITECTURE = '[architecture]\nname = "resnet20"\n'


@pytest.fixture
def photos(tmp_path: Path) -> str:
    """Add folders `0` to `11`, which sort as 0, 1, 10, 11, 2, ..., and return the manifest's table."""
    done = cli("data", "add", "image_folder", class_tree(tmp_path / "photos", NUMBERED), "--as", tmp_path.name)
    assert done.code == 0, done.err
    return f'[dataset]\nname = "image_folder"\noptions = {{ source = "{tmp_path.name}" }}'


def problem_of(folder: Path, dataset: str, classes: str, architecture: str = ARCHITECTURE) -> Problem:
    problem = f"[problem]\nforget_classes = {classes}\nlimited_share = 0.5"
    text = manifest_text(WD, dataset=dataset, architecture=architecture, problem=problem)
    return resolve(write_manifest(folder, text, "m.toml")).problems[0]


def faults(folder: Path, *given: str) -> str:
    with pytest.raises(ManifestError) as caught:
        problem_of(folder, *given)
    return str(caught.value).replace(f"{folder}/", "")


def test_an_index_that_is_the_name_of_another_class_is_refused(tmp_path: Path, photos: str) -> None:
    assert faults(tmp_path, photos, "[10]") == (
        'm.toml:9: problem.forget_classes: 10 is the index of class "8", and another class is called "10"\n'
        '  Write the name of the one that you mean, in quotes: "8" or "10"'
    )
    # The index of "0" is 0, so that there is nothing to mistake.
    assert problem_of(tmp_path, photos, "[0]").forget_classes == (0,)


def test_names_are_taken_as_names_and_stand_in_the_title(tmp_path: Path, photos: str) -> None:
    found = problem_of(tmp_path, photos, '["10", "11"]')
    assert found.forget_classes == (2, 3)
    assert found.title == ("image_folder / resnet20: forget 2 of 12 classes (10, 11), limited data 50 % per class")
    many = problem_of(tmp_path, photos, '["0", "1", "2", "3", "4", "5"]')
    assert "forget 6 of 12 classes (0, 1, 2, 3 and 2 more), limited" in many.title


CHECKPOINT = '[architecture]\nname = "digits_net"\nweights = "x.pth"\n'
DIGITS = '[dataset]\nname = "digits"'


@pytest.fixture
def checkpoint(tmp_path: Path) -> None:
    network = Network("digits_net", {}, 10, (1, 8, 8)).unfilled(1)
    torch.save(network.state_dict(), tmp_path / "x.pth")


def with_order(*order: object) -> str:
    return f"{CHECKPOINT}class_order = {list(order)}"


def test_the_order_of_a_checkpoint_s_outputs_is_part_of_the_problem(tmp_path: Path, checkpoint: None) -> None:
    plain = problem_of(tmp_path, DIGITS, "[9]", CHECKPOINT)
    turned = problem_of(tmp_path, DIGITS, "[9]", with_order(*reversed(range(10))))
    assert turned.weights is not None
    assert turned.weights.class_order == tuple(reversed(range(10)))
    assert turned.id != plain.id
    assert problem_of(tmp_path, DIGITS, "[9]", with_order(*(str(digit) for digit in range(10)))).id == plain.id


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        (with_order(*range(9)), "7: architecture.class_order: 9 entries for the 10 classes of digits; '9' is missing"),
        (
            with_order(*range(9), 0),
            "7: architecture.class_order: 10 entries for the 10 classes of digits; '9' is missing",
        ),
        (with_order(*range(9), 10), "7: architecture.class_order: digits has no class 10: its classes are 0 to 9"),
        (
            with_order(*range(10)).replace('weights = "x.pth"\n', ""),
            "6: architecture.class_order: orders the outputs of `weights`, which are not given",
        ),
    ],
)
def test_an_order_that_is_none_is_refused(tmp_path: Path, checkpoint: None, architecture: str, told: str) -> None:
    assert faults(tmp_path, DIGITS, "[9]", architecture) == f"m.toml:{told}"
