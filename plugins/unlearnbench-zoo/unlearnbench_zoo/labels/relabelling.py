"""Other labels for the forget images: random, for all weights or some (SalUn), or the nearest (Boundary Shrink)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_zoo.descent import (
    SEARCH,
    BatchNorm,
    Count,
    Descent,
    Epochs,
    Momentum,
    Positive,
    Share,
    Weight,
    forward,
)

CHECK = {"epochs": 30, "batch_size": 32}


@declare(check_options=CHECK, ranges=SEARCH)
def random_labels(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Epochs = 10,
    batch_size: Count = 256,
    learning_rate: Positive = 0.013,
    momentum: Momentum = 0.9,
    weight_decay: Weight = 5e-4,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """Random labels: train forget images towards random retain classes, then retain images towards their own.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        epochs: Passes over the forget images, each followed by one over the retain images.
        batch_size: Images in a step.
        learning_rate: Learning rate of SGD.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        batch_norm: `training` normalises with the batch's statistics and updates them; `frozen` keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: all limited images, once per epoch.
    Changes: all parameters, and the batch-norm statistics unless they are frozen.

    Source: the baseline of SalUn (Fan, Liu, Zhang, Wong, Wei, Liu; ICLR 2024; arXiv 2310.12508), after "Amnesiac
    machine learning" (Graves, Nagisetty, Ganesh; AAAI 2021). Defaults are SalUn's. Labels are drawn anew for
    every batch, and only from the retain classes, because another forget class would not count as forgetting.
    """
    optimizer = _sgd(model, learning_rate, momentum, weight_decay)
    return _relabel(model, task, epochs, batch_size, Descent(model, optimizer, batch_norm))


@declare(check_options=CHECK, ranges={**SEARCH, "salient_share": Range(0.1, 0.9)})
def salun(
    model: nn.Module,
    task: UnlearningTask,
    *,
    salient_share: Share = 0.5,
    epochs: Epochs = 10,
    batch_size: Count = 256,
    learning_rate: Positive = 0.013,
    momentum: Momentum = 0.9,
    weight_decay: Weight = 5e-4,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """SalUn: random labels, learned only by the weights with the largest gradients on the forget images.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        salient_share: Share of all parameters that may move.
        epochs: Passes over the forget images, each followed by one over the retain images.
        batch_size: Images in a step.
        learning_rate: Learning rate of SGD.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        batch_norm: `training` normalises with the batch's statistics and updates them; `frozen` keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: the limited forget images once for the mask, then all limited images once per epoch.
    Changes: the salient parameters, and the batch-norm statistics unless they are frozen. All other parameters
        stay the same, bit for bit.

    Source: SalUn (Fan, Liu, Zhang, Wong, Wei, Liu; ICLR 2024; arXiv 2310.12508), defaults of its code. As there, the
    mask is taken over all parameters together, but from plain images, where the code augments them. Frozen weights
    and their momentum are restored after each step; the code only masks gradients, so that weight decay still
    moves the frozen ones. Labels come from the retain classes only.
    """
    masks = saliency_masks(model, task, salient_share)
    optimizer = _sgd(model, learning_rate, momentum, weight_decay)
    return _relabel(model, task, epochs, batch_size, MaskedDescent(model, optimizer, batch_norm, masks))


@declare(check_options={"epochs": 30, "batch_size": 32, "learning_rate": 5e-3}, ranges=SEARCH)
def boundary_shrink(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Epochs = 10,
    batch_size: Count = 64,
    learning_rate: Positive = 1e-5,
    momentum: Momentum = 0.9,
    bound: Positive = 0.1,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """Boundary Shrink: train each forget image towards the class on the other side of its nearest boundary.

    That class is what the original says to the image after one step of `bound` up the gradient of its cross-entropy, in
    the direction of the gradient's sign (FGSM). No retain image is read.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited forget data.
        epochs: Passes over the forget images.
        batch_size: Images in a step.
        learning_rate: Learning rate of SGD.
        momentum: Momentum of SGD.
        bound: Length of the step in each pixel, as a share of the range of intensities.
        batch_norm: `training` normalises with the batch's statistics and updates them; `frozen` keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: the limited forget images, once per epoch; the original sees each twice more.
    Changes: all parameters, and the batch-norm statistics unless they are frozen.

    Source: "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting the Decision Boundary" (Chen, Gao, Liu,
    Peng, Wang; CVPR 2023; arXiv 2303.11570), bound, rate and epochs of the paper. The nearest class is looked for among
    the retain classes, where the code takes any class, the image's own included: another forget class would not count
    as forgetting. The step is taken on intensities in [0, 1] and rounded to 256 levels, as there.
    """
    original = copy.deepcopy(model).eval().requires_grad_(False)
    descent = Descent(model, _sgd(model, learning_rate, momentum, 0.0), batch_norm)
    for _ in descent.epochs(epochs):
        for images, labels in task.batches(1, "forget", batch_size=batch_size):
            nearest = neighbours(original, images, labels, bound, task)
            descent.step(F.cross_entropy(forward(model, images, task), nearest))
        task.end_epoch(model)
    return model


def neighbours(model: nn.Module, images: Tensor, labels: Tensor, bound: float, task: UnlearningTask) -> Tensor:
    """Return for each image (B, C, H, W) the retain class that a model says after a step across its boundary, (B,)."""
    inputs = images.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(forward(model, inputs, task), labels), [inputs])
    moved = (task.pixels(images) + bound * gradient.sign()).clamp(0, 1)
    with torch.no_grad():
        logits = forward(model, task.normalise((moved * 255).round() / 255), task)
    return task.retain_classes[logits[:, task.retain_classes].argmax(dim=1)]


class MaskedDescent(Descent):
    """Steps after which everything outside the masks is as it was at first, momentum included.

    Args:
        model: Model to train.
        optimizer: SGD optimizer with a single group that holds all parameters of the model.
        batch_norm: Mode of the batch-norm layers, as for `Descent`.
        masks: Bool tensors in the order of the model's parameters.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, batch_norm: BatchNorm, masks: list[Tensor]
    ) -> None:
        super().__init__(model, optimizer, batch_norm)
        self._frozen = [
            (parameter, ~mask, parameter.detach().clone())
            for parameter, mask in zip(model.parameters(), masks, strict=True)
        ]

    def step(self, loss: Tensor) -> None:
        """Move the parameters, then restore the frozen ones."""
        super().step(loss)
        with torch.no_grad():
            for parameter, frozen, kept in self._frozen:
                torch.where(frozen, kept, parameter, out=parameter.data)
                momentum = self.optimizer.state[parameter].get("momentum_buffer")
                if momentum is not None:
                    momentum.masked_fill_(frozen, 0.0)


def saliency_masks(model: nn.Module, task: UnlearningTask, share: float) -> list[Tensor]:
    """Return which parameters have the largest gradients of the forget images' summed cross-entropy.

    Args:
        model: Model, left in evaluation mode.
        task: Task that gives the forget images.
        share: Share of all parameters together; ties at the border are decided by their order.

    Returns:
        Bool tensors in the order of the model's parameters.
    """
    model.eval()
    parameters = list(model.parameters())
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for images, labels in task.plain("forget"):
        loss = F.cross_entropy(forward(model, images, task), labels, reduction="sum")
        # A parameter that this forward pass does not use, as those of an auxiliary classifier, has no gradient.
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient
    magnitudes = torch.cat([total.abs().flatten() for total in sums])
    order = magnitudes.argsort(descending=True, stable=True)
    chosen = torch.zeros_like(magnitudes, dtype=torch.bool)
    chosen[order[: int(len(magnitudes) * share)]] = True
    pieces = chosen.split([parameter.numel() for parameter in parameters])
    return [piece.view_as(parameter) for piece, parameter in zip(pieces, parameters, strict=True)]


def _sgd(model: nn.Module, learning_rate: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay)


def _relabel(model: nn.Module, task: UnlearningTask, epochs: int, batch_size: int, descent: Descent) -> nn.Module:
    """Train on randomly labelled forget images, then on retain images, epoch by epoch."""
    generator = task.generator("random labels")
    for _ in descent.epochs(epochs):
        for images, labels in task.batches(1, "forget", batch_size=batch_size):
            drawn = torch.randint(len(task.retain_classes), labels.shape, generator=generator).to(task.device)
            descent.step(F.cross_entropy(forward(model, images, task), task.retain_classes[drawn]))
        for images, labels in task.batches(1, "retain", batch_size=batch_size):
            descent.step(F.cross_entropy(forward(model, images, task), labels))
        task.end_epoch(model)
    return model
