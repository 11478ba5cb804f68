"""A problem small enough to follow by hand: 24 images of 4 classes, all seen in every step."""

import copy

import torch
from torch import Tensor, nn
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.unlearners.task import UnlearningTask

RECIPE = TrainingRecipe(epochs=1, batch_size=8, learning_rate=0.1, precision="float32")


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)
    ).eval()


def task_of(forget: tuple[int, ...] = (1, 3)) -> UnlearningTask:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (24, 1, 4, 4), dtype=torch.uint8, generator=generator)
    data = Batches(images, torch.arange(24) % 4, [0.5], [0.3], Augmentation())
    return UnlearningTask(data, forget, 4, RECIPE, 0, lambda: network(7))


def images_of(task: UnlearningTask, kind: str) -> tuple[Tensor, Tensor]:
    """Return all images of a kind, without counting them as read."""
    positions = task._positions[kind]
    return task._data.plain(positions), task._data.labels[positions]


def kl(target: Tensor, logits: Tensor) -> Tensor:
    """Return the mean over rows of sum p (log p - log q), written out."""
    rows = []
    for p, z in zip(target, logits, strict=True):
        q = z.exp() / z.exp().sum()
        rows.append(sum(p[k] * (p[k].log() - q[k].log()) for k in range(len(p)) if p[k] > 0))
    return torch.stack(rows).mean()


def entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy, written out."""
    return torch.stack([z.exp().sum().log() - z[k] for z, k in zip(logits, labels, strict=True)]).mean()


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True))


class Sgd:
    """SGD as torch documents it, for a few steps by hand."""

    def __init__(self, model: nn.Module, rate: float, momentum: float, decay: float = 0.0) -> None:
        self.model, self.rate, self.momentum, self.decay = model, rate, momentum, decay
        self.velocity: list[Tensor] = []

    def step(self, loss: Tensor, masks: list[Tensor] | None = None) -> None:
        parameters = list(self.model.parameters())
        moved = [g + self.decay * p.detach() for g, p in zip(gradients(self.model, loss), parameters, strict=True)]
        if masks is not None:
            moved = [g * mask for g, mask in zip(moved, masks, strict=True)]
        before = self.velocity or [torch.zeros_like(g) for g in moved]
        self.velocity = [g + self.momentum * v for g, v in zip(moved, before, strict=True)]
        with torch.no_grad():
            for parameter, velocity in zip(parameters, self.velocity, strict=True):
                parameter -= self.rate * velocity


class Adam:
    """Adam as its paper describes it, for a few steps by hand."""

    def __init__(self, model: nn.Module, rate: float, decay: float = 0.0) -> None:
        self.model, self.rate, self.decay, self.steps = model, rate, decay, 0
        self.first = [torch.zeros_like(p) for p in model.parameters()]
        self.second = [torch.zeros_like(p) for p in model.parameters()]

    def step(self, loss: Tensor) -> None:
        self.steps += 1
        found = gradients(self.model, loss)
        with torch.no_grad():
            for parameter, g, m, v in zip(self.model.parameters(), found, self.first, self.second, strict=True):
                g = g + self.decay * parameter
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                mean, square = m / (1 - 0.9**self.steps), v / (1 - 0.999**self.steps)
                parameter -= self.rate * mean / (square.sqrt() + 1e-8)


def assert_same(model: nn.Module, expected: nn.Module, tolerance: float = 1e-5) -> None:
    for (name, found), wanted in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(found, wanted, atol=tolerance, rtol=1e-4), name


def student_of(model: nn.Module) -> nn.Module:
    """Return a copy of a model in training mode."""
    return copy.deepcopy(model).train()
