"""The training recipe of a manifest."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A table of a manifest: frozen, strict about types, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TrainingRecipe(Section):
    """How original and retrained models are trained; unlearners with a full schedule follow it too.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images in a step.
        learning_rate: Learning rate of SGD; with a one-cycle schedule, its highest value.
        momentum: Momentum of SGD.
        nesterov: Whether the momentum is taken at the point that it leads to (Nesterov).
        weight_decay: Weight decay of SGD, on all parameters.
        schedule: `steps` multiplies the rate by `factor` after each of `milestones`; `one_cycle` raises it
            linearly from 1/25 over the first 30 % of the steps, then lowers it by a cosine to 1/10,000;
            `constant` keeps it.
        milestones: Epochs after which `steps` lowers the rate; a manifest with `steps` has to name them.
        factor: Number that `steps` multiplies the rate by.
        crop: Side of the square that training crops at random and testing from the centre; None keeps the size.
        padding: Zero pixels added on each side before a random crop.
        horizontal_flip: Whether each training image is mirrored with probability 1/2.
        resolutions: Pairs [epoch, side]: up to that epoch the images of reference models are resized, after everything
            else that happens to them, so that their shorter side has that many pixels. From the last pair's epoch on
            they have their full size. The network has to take images of each size. Unlearners that follow the recipe
            see the full size from the first epoch.
        mean: Value subtracted from each channel, in [0, 1]; None takes that of the published weights, if the model
            starts from some, and otherwise that of the data set.
        std: Value that each channel is divided by, chosen in the same way.
        precision: Precision of the forward and backward pass in training: `auto` is bfloat16 where the hardware
            computes in it, else float32. Master weights and evaluation are float32.

    Source: one cycle: "Super-Convergence" (Smith and Topin, 2017); Nesterov: "On the importance of initialization and
    momentum in deep learning" (Sutskever et al., 2013), in torch's form; growing resolution: "EfficientNetV2" (Tan and
    Le, 2021), section 4, without its growing regularisation.
    """

    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["steps", "one_cycle", "constant"] = "steps"
    milestones: tuple[PositiveInt, ...] = ()
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    crop: PositiveInt | None = None
    padding: Annotated[int, Field(ge=0)] = 0
    horizontal_flip: bool = False
    resolutions: tuple[tuple[PositiveInt, PositiveInt], ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def side(self, epoch: int) -> int | None:
        """Return the shorter side of the images in an epoch, counted from 0; None for their full size."""
        return next((side for end, side in self.resolutions if epoch < end), None)


def read_recipe(values: dict[str, Any]) -> TrainingRecipe:
    """Return a recipe from its JSON values, as a record holds them.

    Raises:
        ValidationError: If they are none.
    """
    return TrainingRecipe.model_validate_json(json.dumps(values))


def resized_shape(height: int, width: int, side: int) -> tuple[int, int]:
    """Return height and width of an image whose shorter side becomes `side` pixels long."""
    shorter = min(height, width)
    return round(height * side / shorter), round(width * side / shorter)


def pixel_share(height: int, width: int, side: int | None) -> float:
    """Return the share of an image's pixels that it keeps if its shorter side becomes `side` long; None keeps all."""
    return 1.0 if side is None else math.prod(resized_shape(height, width, side)) / (height * width)


def full_size_epochs(recipe: TrainingRecipe, height: int, width: int, epochs: int | None = None) -> float:
    """Return how many epochs at full size have as many pixels as the recipe's.

    Args:
        recipe: The recipe.
        height: Of what the network sees at full size.
        width: Likewise.
        epochs: Only so many of its epochs, the first ones; None takes all.
    """
    count, begun, total = recipe.epochs if epochs is None else epochs, 0, 0.0
    for end, side in recipe.resolutions:
        ended = max(begun, min(end, count))
        total += (ended - begun) * pixel_share(height, width, side)
        begun = ended
    return total + (count - begun)


def recipe_identity(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a recipe's JSON values that determines a result: every field that is not off.

    A field that is None, false or empty counts as absent, so that a recipe keeps its identity when a later version
    adds fields.
    """
    return {key: value for key, value in recipe.items() if value is not None and value is not False and value != []}
