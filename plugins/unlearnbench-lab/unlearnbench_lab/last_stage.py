"""Training of a network's last stage alone: what lies below it keeps its weights and its batch-norm statistics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from unlearnbench.models.classifier import captured_features
from unlearnbench.models.stages import captured_stages, find_stages
from unlearnbench.unlearners.task import UnlearningTask


def freeze_below_last_stage(model: nn.Module, task: UnlearningTask) -> list[nn.Module]:
    """Stop the gradients of all parameters below the last stage that has parameters of its own.

    Args:
        model: Network, which is left in evaluation mode. Its stages are found, or declared by its architecture.
        task: Task whose images have the shape that the network takes.

    Returns:
        The modules all of whose parameters these are, which belong into evaluation mode; none if the network has one
        stage.
    """
    image = torch.zeros(1, *task.image_shape, device=task.device)
    stages, _ = find_stages(model, image)
    model.eval()
    found_features, found_stages = captured_features(model, with_gradient=True), captured_stages(model, stages)
    with torch.enable_grad(), found_features as features, found_stages as outputs:
        model(image)
    *earlier, last = [_parameters_of(output, model) for output in (*outputs, features[-1])]
    below = next((found for found in reversed(earlier) if found and found < last), set())
    for parameter in below:
        parameter.requires_grad_(False)
    # A network that holds parameters itself, as a transformer does its class token, holds others as well.
    parameters = {module: set(module.parameters()) for module in model.modules()}
    return [module for module, own in parameters.items() if own and own <= below]


def _parameters_of(output: Tensor, model: nn.Module) -> set[nn.Parameter]:
    """Return the parameters that an output is computed from."""
    if not output.requires_grad:
        return set()
    parameters = list(model.parameters())
    found = torch.autograd.grad(output.sum(), parameters, retain_graph=True, allow_unused=True)
    return {parameter for parameter, gradient in zip(parameters, found, strict=True) if gradient is not None}


def train_mode(model: nn.Module, frozen: Sequence[nn.Module]) -> None:
    """Put a model into training mode, but its frozen modules into evaluation mode."""
    model.train()
    for module in frozen:
        module.eval()
