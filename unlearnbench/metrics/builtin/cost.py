"""Costs: how many image passes bring the forget classes back, and how many an unlearner saves against FDR."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.accuracy import forget_accuracy
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.live_model import LiveModel
from unlearnbench.metrics.measurement import Costs, Measurement, References
from unlearnbench.models.batches import Batches, in_batches
from unlearnbench.models.classifier import classifier, output_classes, replace_classifier
from unlearnbench.seeds import derived_seed


def relearn_cost(
    features: FeatureFile,
    references: References,
    model: LiveModel,
    *,
    margin: Annotated[float, Field(ge=0)] = 0.05,
    optimizer: Literal["sgd", "adam"] = "sgd",
    learning_rate: Annotated[float, Field(gt=0)] = 0.01,
    batch_size: Annotated[int, Field(gt=0)] = 64,
    max_epochs: Annotated[int, Field(gt=0)] = 100,
) -> Measurement:
    """Relearn cost: image passes of fine-tuning on limited forget images until FAe reaches FDR's plus a margin.

    A copy of the model learns from the limited forget images alone, with cross-entropy, training augmentation and
    frozen batch-norm statistics. FAe on the forget test images is computed after every step. A forget class without
    an output first gets one with weights of 0.

    Args:
        features: The judged model's features.
        references: Feature files of the references; FDR's FAe is the base of the goal.
        model: The judged model, of which a copy is trained.
        margin: Fraction added to FDR's FAe.
        optimizer: `sgd` with momentum 0.9, or `adam`.
        learning_rate: Step size.
        batch_size: Images in a step.
        max_epochs: Passes over the limited forget images after which the search gives up.

    Returns:
        Number of image passes, at least 0; the more, the better the class is forgotten. It is 0 if FAe is there
        already, and FDR's own cost is the yardstick. If FAe never gets there, the value counts all passes up to the
        end, and `reached` is false in the details.

    Raises:
        MetricError: If there is no forget test image, a parameter is not finite, or the loss is no longer finite.

    Source: relearn time (Golatkar et al., CVPR 2020; Tarun et al., 2023), counted in images instead of seconds. Known
    weakness: it depends on the learning rate, and steps on forget images alone can kill the features of a network (seen
    with FDR and Adam at 3e-3 on digits). Needs the model, so that `unlearnbench evaluate` cannot compute it.
    """
    goal = float(forget_accuracy(references.fdr)) + margin
    student = with_outputs_for(model.load(), features.forget_classes.tolist())
    student.eval()
    limited, test = model.limited(), model.test()
    forget = torch.from_numpy(features.forget_classes).to(limited.labels.device)
    positions, held_out = (torch.nonzero(torch.isin(part.labels, forget)).flatten() for part in (limited, test))
    update = (
        torch.optim.SGD(student.parameters(), lr=learning_rate, momentum=0.9)
        if optimizer == "sgd"
        else torch.optim.Adam(student.parameters(), lr=learning_rate)
    )
    passes, reached = 0, share_found(student, test, held_out)
    for epoch in range(max_epochs):
        if reached >= goal:
            break
        generator = torch.Generator().manual_seed(derived_seed(features.seed, "relearn", epoch))
        for images, labels in limited.shuffled(batch_size, generator, positions):
            if reached >= goal:
                break
            _step(student, update, images, labels)
            passes += len(labels)
            reached = share_found(student, test, held_out)
    details = {"goal": goal, "forget_accuracy": reached, "reached": reached >= goal}
    return Measurement(float(passes), details)


def with_outputs_for(model: nn.Module, classes: list[int]) -> nn.Module:
    """Give a model an output for each of `classes` without one, with weights of 0 and the mean bias of the others."""
    layer, known = classifier(model), output_classes(model)
    missing = sorted(set(classes) - set(known.tolist()))
    if not missing:
        return model
    every = torch.cat([known, torch.tensor(missing, device=known.device)])
    order = torch.argsort(every)
    weight = torch.cat([layer.weight.detach(), layer.weight.new_zeros(len(missing), layer.in_features)])
    bias = None
    if layer.bias is not None:
        bias = torch.cat([layer.bias.detach(), layer.bias.detach().mean().expand(len(missing))])[order]
    replace_classifier(model, weight[order], bias, every[order])
    return model


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    loss = F.cross_entropy(model(images).float(), torch.searchsorted(output_classes(model), labels))
    if not torch.isfinite(loss):
        raise MetricError("the loss of relearning is not finite")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def share_found(model: nn.Module, test: Batches, positions: Tensor) -> float:
    """Return the accuracy on the test images at `positions`.

    Raises:
        MetricError: If there is none.
    """
    if len(positions) == 0:
        raise MetricError("there is no test image of these classes")
    with torch.inference_mode():
        hits = [
            output_classes(model)[model(images).argmax(dim=1)] == labels
            for images, labels in in_batches(test, positions)
        ]
    return int(torch.cat(hits).sum()) / len(positions)


def speed_up(costs: Costs) -> Measurement:
    """Speed-up against FDR in image passes: FDR's image passes / the method's.

    A pass is one training image that goes through the network once. Forget and retain images count alike, and those of
    ERwP's relevance search are included. The speed-up in measured seconds differs from run to run; the record holds it
    as `measured.speed_up_seconds`, the passes by kind as `image_passes`, and the seconds of each stage and the peak
    memory in `measured`.

    Args:
        costs: Image passes of the judged model and of FDR.

    Returns:
        A ratio of at least 0, higher is better; 1 for FDR itself.

    Raises:
        MetricError: If the method reads no image at all, so that there is no ratio.

    Source: ERwP (ECCV 2022), section 4.2, where the factor is epochs x images. Known weakness: a forward-only pass
    costs a third of one that trains, and the passes of a teacher are not counted; the measured seconds include both.
    """
    judged, fdr = sum(costs.judged.values()), sum(costs.fdr.values())
    if judged == 0:
        raise MetricError("no training image was read: there is no ratio to FDR's image passes")
    return Measurement(fdr / judged, {"judged": costs.judged, "fdr": costs.fdr})
