"""ERwP: efficient removal with preservation, the method of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unlearnbench.models.training import check_finite, set_learning_rate
from unlearnbench.registry.declare import Range, SearchSpace, declare
from unlearnbench.unlearners.builtin.relevance import RelevanceOptions, relevant_parameters, searched_classes
from unlearnbench.unlearners.distillation import Reduction, Teacher
from unlearnbench.unlearners.task import UnlearningTask


@dataclass(frozen=True)
class RemovalOptions:
    """Removal: how the relevant parameters move.

    Attributes:
        epochs: Passes over the limited data.
        batch_size: Images in a step; None means those of the recipe.
        optimizer: Optimizer of the removal: `adam` or `sgd`.
        learning_rate: Learning rate of the first epoch.
        learning_rate_steps: Pairs of an epoch, counted from 1, and the learning rate from that epoch on.
        momentum: Momentum of SGD.
        weight_decay: Weight decay on the relevant parameters.
        batch_norm: `frozen` keeps the original's statistics; `training` normalises with the batch's and updates them.
        l_e: Whether the loss includes the term of forget images.
        l_e_form: `ascent` is the paper's -(-log p) of the right class, without a lower bound; `bounded` is -log(1 - p),
            which has nothing left to gain once the class is unlikely.
        l_ne: Whether the loss includes the cross-entropy of retain images.
        l_kd: Whether the loss includes distillation.
        step_loss: Whether the loss of a step is the `mean` over its images or their `sum`.
        stop_when_forgotten: Whether to end after the first epoch in which no limited forget image is recognised.
    """

    epochs: Annotated[int, Field(ge=0)] = 10
    batch_size: Annotated[int, Field(gt=0)] | None = None
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    learning_rate_steps: tuple[tuple[Annotated[int, Field(ge=1)], Annotated[float, Field(gt=0)]], ...] = ()
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    batch_norm: Literal["frozen", "training"] = "frozen"
    l_e: bool = True
    l_e_form: Literal["ascent", "bounded"] = "ascent"
    l_ne: bool = True
    l_kd: bool = True
    step_loss: Literal["mean", "sum"] = "mean"
    stop_when_forgotten: bool = False


@dataclass(frozen=True)
class DistillationOptions:
    """Distillation: what holds the retain classes.

    Attributes:
        beta: Weight of the distillation loss.
        kappa: Temperature of the softmax.
        reduction: `batch_mean` sums over classes, `element_mean` averages over them.
        distilled_on: Images of a batch that are distilled: `all` or only those of `retain` classes.
    """

    beta: Annotated[float, Field(ge=0)] = 10.0
    kappa: Annotated[float, Field(gt=0)] = 2.0
    reduction: Reduction = "batch_mean"
    distilled_on: Literal["all", "retain"] = "all"


@dataclass(frozen=True)
class ErwpOptions(DistillationOptions, RemovalOptions, RelevanceOptions):
    """All options of ERwP."""


RANGES: dict[str, SearchSpace] = {
    "epochs": Range(5, 40),
    "learning_rate": Range(1e-5, 1e-2, log=True),
    "beta": Range(1.0, 30.0, log=True),
    "batch_size": (16, 32, 64),
}


# The ascent needs some hundred steps, and the limited data of the check give only nine in an epoch.
@declare(
    version=2,
    check_options={"augmentation": "rotation", "batch_size": 16, "learning_rate": 1e-3, "epochs": 20},
    ranges=RANGES,
)
def erwp(model: nn.Module, task: UnlearningTask, *, options: ErwpOptions = ErwpOptions()) -> nn.Module:
    """ERwP: find the parameters relevant to the forget classes, then move only them.

    On mini-batches of the limited data it ascends the cross-entropy of forget images, descends that of retain
    images and distils the original's retain logits on all images. All other parameters stay the same, bit for bit.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        options: Options of the search, the removal and the distillation; see their classes.

    Returns:
        The unlearned model, with the same input and output shapes.

    Raises:
        TrainingFailedError: If the loss is no longer finite, as the ascent has no lower bound.

    Reads: for the search, the limited images of each forget class, once backward and once for every look; for the
        removal, all limited images, once per epoch. The teacher sees the latter too.
    Changes: the parameters relevant to the forget classes. With `batch_norm` frozen nothing else changes; in
        training mode the batch-norm statistics are updated.

    Source: ERwP (Singh, Mazumder, Karim; ECCV 2022), section 4 and supplement 2. The paper names neither an
    optimizer nor a batch-norm mode; Adam and the original's statistics are our choice. Distillation is
    averaged over images and summed over classes.
    """
    teacher = Teacher(model, task, options.beta, options.kappa, options.reduction) if options.l_kd else None
    reads = task.size() + (task.size("forget") if options.stop_when_forgotten else 0)
    masks, facts = relevant_parameters(model, task, options, later=options.epochs * reads)
    task.report("relevant_share", facts["relevant_share"])
    if missing := sorted(set(task.forget_classes.tolist()) - set(searched_classes(task))):
        # Without an image of a class nothing says which parameters matter to it.
        task.report("not_searched_classes", missing)
    # What is out of reach of the search never moves.
    searched = sum(mask.numel() for mask in masks.values())
    task.report("searched_share", searched / sum(parameter.numel() for parameter in model.parameters()))
    update = MaskedUpdate(model, masks, options)
    for epoch in range(1, options.epochs + 1):
        set_mode(model, options)
        set_learning_rate(update.optimizer, rate_of_epoch(options, epoch))
        total = torch.zeros((), device=task.device)
        for images, labels in task.batches(1, batch_size=options.batch_size):
            with task.autocast():
                logits = model(images)
            loss = removal_loss(logits.float(), labels, task, options)
            if teacher is not None:
                loss = loss + distillation(teacher, images, logits, labels, task, options)
            update.step(loss * len(labels) if options.step_loss == "sum" else loss)
            total += loss.detach()
        check_finite(float(total), f"removal epoch {epoch}")
        task.end_epoch(model)
        if options.stop_when_forgotten and not _recognises_any(model, task):
            break
    return model


def removal_loss(logits: Tensor, labels: Tensor, task: UnlearningTask, options: RemovalOptions) -> Tensor:
    """Return the loss of a batch's labels: retain images' cross-entropy and the term of forget images, by their number.

    Args:
        logits: (B, K) logits of the model.
        labels: (B,) class indices.
        task: Task that knows which labels are forget classes.
        options: Options that switch each of the two terms on or off.
    """
    entropy = F.cross_entropy(logits, labels, reduction="none")
    forgetting = -entropy if options.l_e_form == "ascent" else improbability_loss(logits, labels)
    losses = torch.where(task.is_forget(labels), float(options.l_e) * forgetting, float(options.l_ne) * entropy)
    return losses.sum() / len(labels)


def improbability_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return -log(1 - p) of each image's own class, (B,), computed from logits (B, K) without rounding p to 1."""
    others = logits.masked_fill(F.one_hot(labels, logits.shape[1]).bool(), -torch.inf)
    return logits.logsumexp(dim=1) - others.logsumexp(dim=1)


def distillation(
    teacher: Teacher, images: Tensor, logits: Tensor, labels: Tensor, task: UnlearningTask, options: DistillationOptions
) -> Tensor:
    """Return the distillation loss of a batch: the mean over those of its images that are distilled, 0 if none is.

    Args:
        teacher: The original model's loss.
        images: (B, C, H, W) images.
        logits: (B, K) logits of the model.
        labels: (B,) class indices.
        task: Task that knows which labels are forget classes.
        options: Options that say which images are distilled.
    """
    if options.distilled_on == "all":
        return teacher.loss(images, logits)
    kept = ~task.is_forget(labels)
    return teacher.loss(images[kept], logits[kept]) if bool(kept.any()) else logits.new_zeros(())


def rate_of_epoch(options: RemovalOptions, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 1."""
    rate = options.learning_rate
    for first, stepped in sorted(options.learning_rate_steps):
        rate = stepped if epoch >= first else rate
    return rate


def set_mode(model: nn.Module, options: RemovalOptions) -> None:
    """Put a model into training mode, with batch norm as the options say."""
    model.train()
    if options.batch_norm == "frozen":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _recognises_any(model: nn.Module, task: UnlearningTask) -> bool:
    """Return whether the model recognises any limited forget image, and leave the model in evaluation mode."""
    model.eval()
    with torch.no_grad():
        hits = [int((model(images).argmax(dim=1) == labels).sum()) for images, labels in task.plain("forget")]
    return sum(hits) > 0


class MaskedUpdate:
    """Optimizer steps that leave everything outside a mask as it is, bit for bit.

    Args:
        model: Model to update; its parameters without a mask take no part at all.
        masks: Bool tensors by parameter name.
        options: Settings of the optimizer.
    """

    def __init__(self, model: nn.Module, masks: dict[str, Tensor], options: RemovalOptions) -> None:
        named = dict(model.named_parameters())
        model.requires_grad_(False)
        self._parameters = [named[name].requires_grad_() for name in masks]
        self._masks = list(masks.values())
        # Weight decay and momentum move parameters even without a gradient, so that their first values are put back.
        self._kept = [parameter.detach().clone() for parameter in self._parameters]
        if options.optimizer == "adam":
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
                self._parameters, lr=options.learning_rate, weight_decay=options.weight_decay
            )
        else:
            self.optimizer = torch.optim.SGD(
                self._parameters,
                lr=options.learning_rate,
                momentum=options.momentum,
                weight_decay=options.weight_decay,
            )

    def step(self, loss: Tensor) -> None:
        """Move the masked parameters down the loss's gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
        with torch.no_grad():
            for parameter, mask in zip(self._parameters, self._masks, strict=True):
                if parameter.grad is not None:
                    parameter.grad.mul_(mask)
            self.optimizer.step()
            for parameter, mask, kept in zip(self._parameters, self._masks, self._kept, strict=True):
                torch.where(mask, parameter, kept, out=parameter.data)
