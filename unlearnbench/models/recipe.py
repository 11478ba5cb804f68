"""The training recipe of a manifest."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A table of a manifest: frozen, strict on types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TrainingRecipe(Section):
    """How original and retrained models are trained; methods with a full schedule follow it too.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images in a step.
        learning_rate: Of SGD; the highest one of a one-cycle schedule.
        momentum: Of SGD.
        weight_decay: Of SGD, on all parameters.
        schedule: `steps` multiplies the rate by `factor` after each of `milestones`; `one_cycle` raises it
            linearly from 1/25 over the first 30 % of the steps, then lowers it by a cosine to 1/10,000;
            `constant` keeps it.
        milestones: Epochs after which `steps` lowers the rate; a manifest with `steps` has to name them.
        factor: What `steps` multiplies the rate by.
        crop: Side of the square that training crops at random and testing from the centre; None keeps the size.
        padding: Zero pixels added on each side before a random crop.
        horizontal_flip: Mirror every second training image, at random.
        mean: What is subtracted from each channel, in [0, 1]; None takes the weights' own where they are published,
            else the data set's.
        std: What each channel is divided by, likewise.
        precision: Of the forward and backward pass in training: `auto` is bfloat16 where the hardware
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
    """Return what of a recipe's JSON values determines a result: all fields that are not off.

    A field that is None, false or empty is as good as absent, so that a recipe keeps its identity when later versions
    know more fields.
    """
    return {key: value for key, value in recipe.items() if value is not None and value is not False and value != []}
