"""Models of a small real problem whose state is known: what they kept and what they forgot is so by construction."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnbench.models.build import Network
from unlearnbench.models.classifier import classifier, keep_outputs
from unlearnbench.models.random_state import own_random_state
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.models.training import ReferenceTraining
from unlearnbench.unlearners.toy_problem import FORGET_CLASSES, NUM_CLASSES, SmallProblem

# Network and recipe of `manifests/digits.toml`; in float32 the models are alike on every processor.
NETWORK = Network("digits_net", {}, NUM_CLASSES, (1, 8, 8))
RECIPE = TrainingRecipe(
    epochs=20,
    batch_size=64,
    learning_rate=0.1,
    weight_decay=1e-4,
    schedule="one_cycle",
    padding=1,
    precision="float32",
)

# These leave everything below the classifier as it is.
HEAD_CONTROLS = ("wd", "head distillation", "untouched")
PROJECTION = "projection"
OTHER_FDR = "FDR, another seed"
RANDOM = "random"


def original_model(problem: SmallProblem, seed: int) -> nn.Module:
    """Return the original of a seed."""
    return _trained(problem, torch.arange(len(problem.data.train)), seed, "original")


def fdr_model(problem: SmallProblem, seed: int = 0) -> nn.Module:
    """Return the FDR of a seed."""
    labels = problem.data.train.labels
    positions = torch.nonzero(~torch.isin(labels, torch.tensor(FORGET_CLASSES))).flatten()
    return _trained(problem, positions, seed, "fdr")


def _trained(problem: SmallProblem, positions: Tensor, seed: int, role: str) -> nn.Module:
    model = NETWORK.build(seed, role)
    with own_random_state(seed):
        ReferenceTraining(model, problem.data.train, positions, RECIPE, seed, role).train()
    return model


def weight_deletion(problem: SmallProblem, original: nn.Module) -> nn.Module:
    """Return an original without the forget classes' outputs."""
    model = copy.deepcopy(original)
    keep_outputs(model, problem.task().retain_classes)
    return model


def untouched_features(problem: SmallProblem, original: nn.Module) -> nn.Module:
    """Return an original whose classifier never answers with a forget class: their biases are far below the others."""
    model = copy.deepcopy(original)
    (head,) = classifier(model).layers
    with torch.no_grad():
        head.bias[problem.task().forget_classes] -= 1000.0
    return model


def head_only_distillation(problem: SmallProblem, original: nn.Module) -> nn.Module:
    """Return an original with a classifier that learned the original's outputs without the forget classes.

    Everything below the classifier stays the same, as with a method that only seems to forget.
    """
    model, task = copy.deepcopy(original), problem.task()
    (head,) = classifier(model).layers
    model.eval().requires_grad_(False)
    head.requires_grad_()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for images, _ in task.batches(40):
        with torch.no_grad():
            goal = original(images).index_fill(1, task.forget_classes, -torch.inf).softmax(dim=1)
        loss = F.cross_entropy(model(images), goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


class Projection(nn.Module):
    """An orthogonal projection of features, (B, D) to (B, D)."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, features: Tensor) -> Tensor:
        """Return the projected features."""
        return features @ self.matrix


def projected(problem: SmallProblem, original: nn.Module) -> nn.Module:
    """Return an original whose last features lost the directions of the forget classes, and nothing else changed.

    The directions are the forget classes' mean features on the limited images, less the mean of all classes' means.

    Source: the closed form POUR-P (Le et al., arXiv 2511.19339, 2025), which takes the features to be those of neural
    collapse, where a class has no more than its mean.
    """
    model = copy.deepcopy(original)
    # A network of `nn.Sequential`, whose last layer is the classifier.
    *body, head = model.children()
    assert isinstance(head, nn.Linear)
    features = nn.Sequential(*body).eval()
    with torch.no_grad():
        means = {label: _mean_feature(features, problem, label) for label in range(head.out_features)}
        centre = torch.stack(list(means.values())).mean(dim=0)
        directions = torch.stack([means[label] - centre for label in FORGET_CLASSES])
        basis = torch.linalg.qr(directions.T).Q
        matrix = torch.eye(len(basis)) - basis @ basis.T
    return nn.Sequential(*body, Projection(matrix), head)


def _mean_feature(features: nn.Module, problem: SmallProblem, label: int) -> Tensor:
    found: Tensor = features(problem.task().images_of(label)).mean(dim=0)
    return found


def control_models(problem: SmallProblem, original: nn.Module, seed: int) -> dict[str, nn.Module]:
    """Return the controls of an original by name; the other FDR and the random network are of a seed of their own."""
    return {
        "wd": weight_deletion(problem, original),
        "head distillation": head_only_distillation(problem, original),
        "untouched": untouched_features(problem, original),
        PROJECTION: projected(problem, original),
        OTHER_FDR: fdr_model(problem, seed + 100),
        RANDOM: NETWORK.build(seed, "random"),
    }
