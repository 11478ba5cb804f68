"""The training recipe."""

from __future__ import annotations

import json

import pytest

from unlearnbench.models.recipe import TrainingRecipe, full_size_epochs, read_recipe, recipe_identity, resized_shape

RECIPE = TrainingRecipe(epochs=10, batch_size=16, learning_rate=0.1)


def recipe(**settings: object) -> TrainingRecipe:
    return TrainingRecipe.model_validate({"epochs": 10, "batch_size": 16, "learning_rate": 0.1, **settings})


def test_the_side_grows_at_the_epochs_named_and_ends_at_full_size() -> None:
    growing = recipe(resolutions=((4, 20), (7, 24)))
    assert [growing.side(epoch) for epoch in range(10)] == [20] * 4 + [24] * 3 + [None] * 3
    assert {RECIPE.side(epoch) for epoch in range(10)} == {None}


@pytest.mark.parametrize(
    ("height", "width", "side", "shape"), [(32, 32, 20, (20, 20)), (40, 60, 20, (20, 30)), (60, 40, 30, (45, 30))]
)
def test_the_shorter_side_is_the_one_named(height: int, width: int, side: int, shape: tuple[int, int]) -> None:
    assert resized_shape(height, width, side) == shape


def test_full_size_epochs_count_pixels() -> None:
    # 5 epochs of a quarter of the pixels, 2 of 9/16, 3 whole ones.
    growing = recipe(resolutions=((5, 16), (7, 24)))
    assert full_size_epochs(growing, 32, 32) == pytest.approx(5 / 4 + 2 * 9 / 16 + 3)
    assert full_size_epochs(growing, 32, 64) == pytest.approx(5 / 4 + 2 * 9 / 16 + 3)
    assert full_size_epochs(RECIPE, 32, 32) == 10
    for epochs, expected in ((0, 0), (3, 3 / 4), (6, 5 / 4 + 9 / 16), (10, 5 / 4 + 2 * 9 / 16 + 3)):
        assert full_size_epochs(growing, 32, 32, epochs) == pytest.approx(expected)
    # The number of epochs is the user's, and nothing is done for each.
    assert full_size_epochs(recipe(epochs=10**12), 32, 32) == 10**12


def test_a_recipe_is_read_back_from_its_json_values() -> None:
    written = recipe(resolutions=((4, 20), (7, 24)), milestones=(3, 5), nesterov=True, mean=(0.5,), std=(0.3,))
    assert read_recipe(json.loads(json.dumps(written.model_dump(mode="json")))) == written


@pytest.mark.parametrize("settings", [{"nesterov": True}, {"resolutions": ((4, 20),)}])
def test_a_field_counts_for_the_identity_only_where_it_is_used(settings: dict[str, object]) -> None:
    plain = recipe_identity(RECIPE.model_dump(mode="json"))
    assert not plain.keys() & settings.keys()
    assert recipe_identity(recipe(**settings).model_dump(mode="json")).keys() - plain.keys() == settings.keys()
