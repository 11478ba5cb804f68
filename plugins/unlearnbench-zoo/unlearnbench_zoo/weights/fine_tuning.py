"""Fine-tuning on the retain images alone: of the last layers, kept (CF-k) or anew (EU-k), or of all with an L1 norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_zoo.descent import SEARCH, BatchNorm, Count, Descent, Epochs, Momentum, Positive, Weight, forward

LAST = {**SEARCH, "layers": Range(1, 8), "momentum": (0.0, 0.9)}
KEEPS = "it trains on retain images alone, and what it keeps may know the forget classes"
CHECK = {"epochs": 60, "batch_size": 16, "momentum": 0.9, "layers": 2}


@declare(exempt={"forgets": KEEPS}, check_options=CHECK, ranges=LAST)
def cf_k(
    model: nn.Module,
    task: UnlearningTask,
    *,
    layers: Count = 4,
    epochs: Epochs = 10,
    batch_size: Count = 64,
    learning_rate: Positive = 0.01,
    momentum: Momentum = 0.0,
    weight_decay: Weight = 0.0,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """CF-k, catastrophic forgetting of the last k layers: fine-tune these on retain images, and freeze the others.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited retain data.
        layers: The paper's k: number of convolutions and linear layers, from the last, that are trained.
        epochs: Passes over the retain images.
        batch_size: Images in a step.
        learning_rate: Learning rate of SGD.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        batch_norm: `training` normalises with the batch's statistics and updates them, in the trained part; `frozen`
            keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: the limited retain images, once per epoch.
    Changes: the last layers, their normalisation, and its statistics unless they are frozen.

    Source: "Towards Adversarial Evaluations for Inexact Machine Unlearning" (Goel, Prabhu, Sanyal, Lim, Torr,
    Kumaraguru; 2022; arXiv 2201.06640). Epochs, batch and rate are those with which the authors of SCRUB run it; they
    train the last residual block, for which a number of layers stands here that fits every network. Layers are counted
    in the order in which the network holds them; weights outside such layers and norms, as an attention's own, stay.
    Batch-norm statistics of the frozen part stay the original's.
    """
    last = last_layers(model, layers)
    return _trained(model, task, last, epochs, batch_size, (learning_rate, momentum, weight_decay), batch_norm)


@declare(check_options=CHECK, ranges=LAST)
def eu_k(
    model: nn.Module,
    task: UnlearningTask,
    *,
    layers: Count = 4,
    epochs: Epochs = 10,
    batch_size: Count = 64,
    learning_rate: Positive = 0.01,
    momentum: Momentum = 0.0,
    weight_decay: Weight = 0.0,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """EU-k, exact unlearning of the last k layers: start these anew, train them on retain images, freeze the others.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited retain data.
        layers: The paper's k: number of convolutions and linear layers, from the last, that start anew.
        epochs: Passes over the retain images.
        batch_size: Images in a step.
        learning_rate: Learning rate of SGD.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        batch_norm: `training` normalises with the batch's statistics and updates them, in the trained part; `frozen`
            keeps those that a new network has.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: the limited retain images, once per epoch.
    Changes: the last layers, their normalisation and its statistics.

    Source: "Towards Adversarial Evaluations for Inexact Machine Unlearning" (Goel, Prabhu, Sanyal, Lim, Torr,
    Kumaraguru; 2022; arXiv 2201.06640), with the settings of `cf_k`. The last layers start as the original's own
    training did: random, or pre-trained if the recipe starts from published weights.
    """
    last, fresh = last_layers(model, layers), dict(task.fresh_model().named_modules())
    for name, module in last.items():
        module.load_state_dict(fresh[name].state_dict())
    return _trained(model, task, last, epochs, batch_size, (learning_rate, momentum, weight_decay), batch_norm)


@declare(
    exempt={"forgets": KEEPS},
    check_options={"epochs": 60, "batch_size": 16, "alpha": 1e-3},
    ranges={**SEARCH, "alpha": Range(1e-5, 1e-2, log=True)},
)
def l1_sparse(
    model: nn.Module,
    task: UnlearningTask,
    *,
    alpha: Weight = 5e-4,
    epochs: Epochs = 10,
    batch_size: Count = 256,
    learning_rate: Positive = 0.01,
    momentum: Momentum = 0.9,
    weight_decay: Weight = 5e-4,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """L1-sparse: fine-tune on retain images with a penalty on the weights' L1 norm that falls to 0 over the epochs.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited retain data.
        alpha: Weight of the L1 norm of all parameters in the first epoch; it falls by the same amount every epoch.
        epochs: Passes over the retain images.
        batch_size: Images in a step.
        learning_rate: Learning rate of SGD.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        batch_norm: `training` normalises with the batch's statistics and updates them; `frozen` keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: the limited retain images, once per epoch.
    Changes: all parameters, and the batch-norm statistics unless they are frozen.

    Source: L1-sparse MU in "Model Sparsity Can Simplify Machine Unlearning" (Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu;
    NeurIPS 2023; arXiv 2304.04934): in epoch t of T, counted from 0, the weight is alpha * (1 - t / T), as in its code.
    Batch, epochs, momentum and decay are the code's, the rate is that with which it is usually run; it fixes no alpha,
    and ours is a choice.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    descent = Descent(model, optimizer, batch_norm)
    for epoch in descent.epochs(epochs):
        weight = alpha * (1 - (epoch - 1) / epochs)
        for images, labels in task.batches(1, "retain", batch_size=batch_size):
            norm = torch.stack([parameter.abs().sum() for parameter in model.parameters()]).sum()
            descent.step(F.cross_entropy(forward(model, images, task), labels) + weight * norm)
        task.end_epoch(model)
    return model


def last_layers(model: nn.Module, number: int) -> dict[str, nn.Module]:
    """Return the last convolutions and linear layers, and what with parameters or buffers stands behind the first.

    Args:
        model: The network.
        number: Number of convolutions and linear layers; with more than there are, all of them.
    """
    leaves = [(name, module) for name, module in model.named_modules() if is_leaf(module) and module.state_dict()]
    weighted = [i for i, (_, module) in enumerate(leaves) if isinstance(module, nn.modules.conv._ConvNd | nn.Linear)]
    return dict(leaves[weighted[-number] if number <= len(weighted) else 0 :])


def is_leaf(module: nn.Module) -> bool:
    """Return whether a module holds no other."""
    return next(module.children(), None) is None


def _trained(
    model: nn.Module,
    task: UnlearningTask,
    last: dict[str, nn.Module],
    epochs: int,
    batch_size: int,
    rates: tuple[float, float, float],
    batch_norm: BatchNorm,
) -> nn.Module:
    """Train some layers on the retain images; rates are those of SGD: learning rate, momentum and weight decay."""
    parameters: list[Tensor] = [parameter for module in last.values() for parameter in module.parameters()]
    model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    rate, momentum, decay = rates
    optimizer = torch.optim.SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay)
    descent = Descent(model, optimizer, batch_norm)
    kept = [module for name, module in model.named_modules() if name not in last and is_leaf(module)]
    for _ in descent.epochs(epochs):
        for module in kept:
            module.eval()
        for images, labels in task.batches(1, "retain", batch_size=batch_size):
            descent.step(F.cross_entropy(forward(model, images, task), labels))
        task.end_epoch(model)
    return model.requires_grad_(True)
