"""The training recipe of a manifest."""

from __future__ import annotations

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
        weight_decay: Weight decay of SGD, on all parameters.
        schedule: `steps` multiplies the rate by `factor` after each of `milestones`; `one_cycle` raises it
            linearly from 1/25 over the first 30 % of the steps, then lowers it by a cosine to 1/10,000;
            `constant` keeps it.
        milestones: Epochs after which `steps` lowers the rate; a manifest with `steps` has to name them.
        factor: Number that `steps` multiplies the rate by.
        crop: Side of the square that training crops at random and testing from the centre; None keeps the size.
        padding: Zero pixels added on each side before a random crop.
        horizontal_flip: Whether each training image is mirrored with probability 1/2.
        mean: Value subtracted from each channel, in [0, 1]; None takes that of the published weights, if the model
            starts from some, and otherwise that of the data set.
        std: Value that each channel is divided by, chosen in the same way.
        precision: Precision of the forward and backward pass in training: `auto` is bfloat16 where the hardware
            computes in it, else float32. Master weights and evaluation are float32.
    """

    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["steps", "one_cycle", "constant"] = "steps"
    milestones: tuple[PositiveInt, ...] = ()
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    crop: PositiveInt | None = None
    padding: Annotated[int, Field(ge=0)] = 0
    horizontal_flip: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


def recipe_identity(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a recipe's JSON values that determines a result: every field that is not off.

    A field that is None, false or empty counts as absent, so that a recipe keeps its identity when a later version
    adds fields.
    """
    return {key: value for key, value in recipe.items() if value is not None and value is not False and value != []}
