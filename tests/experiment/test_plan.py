"""What names the results of a plan: all that decides them, wherever Original comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.commands import cli
from support.manifests import WD, manifest_text, write_manifest
from support.tiny_data import class_tree

from unlearnbench.experiment.plan import Cell, make_plan, unlearned_from
from unlearnbench.experiment.resolve import resolve
from unlearnbench.models.build import Network

COUNTS = {"cat": 4, "dog": 4, "owl": 4}


def planned(folder: Path, *, weights: str = "", training: str = "") -> Cell:
    """Return the cell of an unlearner on the folder's own images, added to the data sets under its name."""
    text = manifest_text(
        WD,
        dataset=f'[dataset]\nname = "image_folder"\noptions = {{ source = "{folder.name}" }}',
        architecture=f'[architecture]\nname = "resnet20"\n{weights}',
        problem='[problem]\nforget_classes = ["owl"]\nlimited_share = 0.5',
    ).replace("[training]", f"[training]\n{training}")
    return make_plan(resolve(write_manifest(folder, text, "m.toml")), precision="float32").cells[-1]


def added(folder: Path, *more: str, salt: int) -> None:
    """Add images under the folder's name; another salt gives other ones of the same number."""
    tree = class_tree(folder / f"photos-{salt}", COUNTS, salt=salt)
    done = cli("data", "add", "image_folder", tree, "--as", folder.name, *more)
    assert done.code == 0, done.err


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """Save a checkpoint and return the manifest's line that gives it."""
    torch.save(Network("resnet20", {}, len(COUNTS), (3, 8, 8)).unfilled(1).state_dict(), tmp_path / "x.pth")
    return 'weights = "x.pth"'


def test_other_images_are_unlearned_anew_from_the_same_weights(tmp_path: Path, mine: str) -> None:
    added(tmp_path, salt=0)
    before = planned(tmp_path, weights=mine)
    added(tmp_path, "--replace", salt=1)
    after = planned(tmp_path, weights=mine)
    assert before.original.id == after.original.id
    assert before.model_id != after.model_id
    assert unlearned_from(before.problem, before.original) != unlearned_from(after.problem, after.original)


def test_what_is_kept_of_given_weights_rests_on_how_images_are_normalised(tmp_path: Path, mine: str) -> None:
    added(tmp_path, salt=0)
    one, other = (
        planned(tmp_path, weights=mine, training=f"mean = [{mean}, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]\n")
        for mean in (0.4, 0.5)
    )
    assert one.original.id == other.original.id
    assert unlearned_from(one.problem, one.original) != unlearned_from(other.problem, other.original)


def test_a_method_that_may_draw_a_fresh_model_depends_on_what_it_starts_from(tmp_path: Path, mine: str) -> None:
    added(tmp_path, salt=0)
    cell = planned(tmp_path, weights=mine)
    assert cell.original.weights is not None
    started = replace(cell.problem, start=cell.original.weights)
    assert unlearned_from(started, cell.original) != unlearned_from(cell.problem, cell.original)


def test_the_id_of_an_original_that_is_trained_has_all_of_it(tmp_path: Path) -> None:
    added(tmp_path, salt=0)
    cell = planned(tmp_path)
    assert unlearned_from(cell.problem, cell.original) == [cell.original.id]
