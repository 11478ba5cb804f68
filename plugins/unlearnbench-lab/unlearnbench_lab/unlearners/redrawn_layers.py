"""Redrawn layers: the last layers are drawn anew and learn retain images alone, as Original sees them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.distillation import Teacher
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.last_stage import freeze_below_last_stage
from unlearnbench_lab.unseen import learn_retain

Count = Annotated[int, Field(gt=0)]


@declare(
    version=1,
    ranges={
        "epochs": Range(10, 80),
        "distillation": Range(0.3, 10.0, log=True),
        "mixing": Range(0.1, 3.0, log=True),
        "redrawn": ("last_stage", "all"),
    },
)
def redrawn_layers(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Annotated[int, Field(ge=0)] = 40,
    batch_size: Count = 32,
    distillation: Annotated[float, Field(ge=0)] = 1.0,
    mixing: Annotated[float, Field(ge=0)] = 0.0,
    temperature: Annotated[float, Field(gt=0)] = 4.0,
    redrawn: Literal["last_stage", "all"] = "last_stage",
) -> nn.Module:
    """Redrawn layers: layers that are drawn anew learn what Original says of the limited retain images.

        loss = cross-entropy + distillation * (L_KD + mixing * L_KD of mixed images), all on retain images

    Nothing of the forget classes is in a layer that was drawn anew, but what lies below it may carry them on.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data, and a way to a fresh network.
        epochs: Passes over the retain images.
        batch_size: Images in a step; the highest rate is the recipe's, in proportion to it.
        distillation: Weight of the distillation of retain logits.
        mixing: Weight of the distillation of mixed images, of that of the images themselves.
        temperature: Temperature of the distillation.
        redrawn: The `last_stage` and the classifier are drawn anew, the others stay as they are; or `all` layers.

    Returns:
        The unlearned model, with the same input and output shapes.

    Raises:
        TrainingFailedError: If the loss is no longer finite.

    Reads: the retain images once per epoch, twice where they are mixed; the teacher sees them too.
    Changes: all parameters and batch-norm statistics of the redrawn layers.

    Source: own; layers drawn anew are those of EU-k (Goel et al., 2022), which does not distil.
    """
    task.expect(epochs * task.size("retain") * (2 if mixing else 1))
    teacher = Teacher(model, task, distillation, temperature, "batch_mean")
    frozen = freeze_below_last_stage(model, task) if redrawn == "last_stage" else []
    kept = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    kept |= {
        f"{name}.{part}" for name, module in model.named_modules() if module in frozen for part in module.state_dict()
    }
    fresh = task.fresh_model().state_dict()
    model.load_state_dict({name: value for name, value in fresh.items() if name not in kept}, strict=False)
    learn_retain(
        model,
        task,
        teacher,
        None,
        epochs,
        batch_size,
        ignored=task.forget_classes[:0],
        frozen=frozen,
        mixing=mixing,
        epoch_ended=lambda: task.end_epoch(model),
    )
    return model.requires_grad_(True)
