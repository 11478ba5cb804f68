"""Probes that are fitted on a student's own features all the while, and the loss that pushes it off them."""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Probe(Protocol):
    """A classifier of features that can be fitted again."""

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Learn from features (N, D) float32 and labels (N,) int64, none of which are changed."""

    def __call__(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, D), with a gradient towards the features."""


class Force(Protocol):
    """What moves the features of forget images while a student learns."""

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Learn from the student's features (N, D) float32 and labels (N,) int64 of both kinds."""

    def loss(self, images: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        """Return a scalar for forget images (B, C, H, W), the student's features (B, D) and labels (B,)."""


class Push:
    """The push off a probe.

    Args:
        probe: Probe that is fitted on the student's features.
        columns: The features to take, of those that the student gives; None takes all.
        sharpness: See `unlikely`.
    """

    def __init__(self, probe: Probe, columns: slice | None = None, sharpness: int = 1) -> None:
        self._probe, self._columns, self._sharpness = probe, columns or slice(None), sharpness

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Fit the probe."""
        self._probe.fit(features[:, self._columns], labels)

    def loss(self, images: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        """Return how likely the probe finds the classes, see `unlikely`."""
        return unlikely(self._probe(features[:, self._columns]), labels, self._sharpness)


def unlikely(logits: Tensor, labels: Tensor, sharpness: int = 1) -> Tensor:
    """Return -log(1 - p) averaged over rows, where p is the softmax probability of each row's label.

    It falls to 0 where the class is not found any more, so that it stops to push there, as gradient ascent does not.
    Where the class is all that is found it still pushes, since the other classes' part 1 - p is summed on its own.

    Args:
        logits: (B, K) of a probe or of the network itself, K > 1.
        labels: (B,) int64.
        sharpness: Power s, from 1 on, of how the push ends: the derivative by the label's logit is p^s, since the first
            s - 1 terms of -log(1 - p) = p + p^2 / 2 + p^3 / 3 + ... are left out.
    """
    values = logits.float()
    others = values.scatter(1, labels[:, None], -torch.inf)
    every = values.logsumexp(dim=1)
    found = every - others.logsumexp(dim=1)
    likely = (values.gather(1, labels[:, None]).flatten() - every).exp()
    for power in range(1, sharpness):
        found = found - likely**power / power
    return found.mean()


class LogisticProbe:
    """Multinomial logistic regression on standardised features, which goes on from its last fit.

    Args:
        classes: K.
        penalty: Weight of the squared weights' sum beside the mean cross-entropy.
        iterations: Steps of L-BFGS in each fit.
    """

    def __init__(self, classes: int, penalty: float = 1e-3, iterations: int = 8) -> None:
        self._classes, self._penalty, self._iterations = classes, penalty, iterations
        self._weight: Tensor | None = None

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Learn from features (N, D) and labels (N,)."""
        self._mean, self._scale = features.mean(dim=0), features.std(dim=0).clamp(min=1e-3)
        inputs = (features - self._mean) / self._scale
        if self._weight is None:
            self._weight = inputs.new_zeros(self._classes, inputs.shape[1])
            self._bias = inputs.new_zeros(self._classes)
        weight, bias = self._weight.clone().requires_grad_(), self._bias.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=self._iterations, history_size=self._iterations)

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(inputs @ weight.T + bias, labels) + self._penalty * weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        self._weight, self._bias = weight.detach(), bias.detach()

    def __call__(self, features: Tensor) -> Tensor:
        """Return logits (B, K)."""
        if self._weight is None:
            raise RuntimeError("the probe was not fitted")
        return (features - self._mean) / self._scale @ self._weight.T + self._bias


class DiscriminantProbe:
    """Linear discriminant analysis: one normal distribution for each class, all with the same covariance.

    Args:
        classes: K, each of which needs a feature to be found.
        shrinkage: Share of the mean variance that is added to each direction's own.
    """

    def __init__(self, classes: int, shrinkage: float = 0.01) -> None:
        self._classes, self._shrinkage = classes, shrinkage

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Learn from features (N, D) and labels (N,), all classes being equally likely."""
        means = class_means(features, labels, self._classes)
        rest = features - means[labels]
        covariance = rest.T @ rest / len(rest)
        identity = torch.eye(len(covariance), device=features.device)
        covariance = covariance + (self._shrinkage * covariance.diagonal().mean() + 1e-12) * identity
        self._weight = torch.linalg.solve(covariance, means.T).T
        absent = torch.bincount(labels, minlength=self._classes) == 0
        self._bias = (-0.5 * (self._weight * means).sum(dim=1)).masked_fill(absent, -torch.inf)

    def __call__(self, features: Tensor) -> Tensor:
        """Return logits (B, K)."""
        logits: Tensor = features @ self._weight.T + self._bias
        return logits


class RidgeProbe:
    """Least squares on one-hot labels with a ridge penalty and equal weight of all classes, as the ranking's probe is.

    It misses a class that lies between others, as normal distributions of one covariance do not.

    Args:
        classes: K.
        ridge: Weight of the squared weights' sum, the features being standardised.
    """

    def __init__(self, classes: int, ridge: float = 0.01) -> None:
        self._classes, self._ridge = classes, ridge

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Learn from features (N, D) and labels (N,)."""
        targets = F.one_hot(labels, self._classes).to(features)
        weights = (1.0 / targets.sum(dim=0).clamp(min=1))[labels]
        weights = (weights / weights.sum())[:, None]
        self._mean = (weights * features).sum(dim=0)
        scale = (weights * (features - self._mean).square()).sum(dim=0).sqrt()
        self._scale = scale.where(scale > 1e-6, 1.0)
        inputs = (features - self._mean) / self._scale
        self._bias = (weights * targets).sum(dim=0)
        penalty = self._ridge * torch.eye(features.shape[1], device=features.device)
        moment = inputs.T @ (weights * inputs) + penalty
        self._weight = torch.linalg.solve(moment, inputs.T @ (weights * (targets - self._bias)))

    def __call__(self, features: Tensor) -> Tensor:
        """Return scores (B, K)."""
        scores: Tensor = (features - self._mean) / self._scale @ self._weight + self._bias
        return scores


class NetworkProbe:
    """A network with one hidden layer on standardised features, which goes on from its last fit.

    Args:
        classes: K.
        hidden: Units of the hidden layer.
        passes: Passes over the features in each fit, with Adam at 1e-3 on batches of 128.
        seed: Seed of its first weights and of the order of the features.
    """

    def __init__(self, classes: int, hidden: int = 128, passes: int = 4, seed: int = 0) -> None:
        self._classes, self._hidden, self._passes = classes, hidden, passes
        self._generator = torch.Generator().manual_seed(seed)
        self._weights: list[Tensor] = []

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Learn from features (N, D) and labels (N,)."""
        self._mean, self._scale = features.mean(dim=0), features.std(dim=0).clamp(min=1e-3)
        inputs = (features - self._mean) / self._scale
        if not self._weights:
            widths = (inputs.shape[1], self._hidden, self._classes)
            for wide, out in pairwise(widths):
                drawn = torch.randn(out, wide, generator=self._generator) * (2.0 / wide) ** 0.5
                self._weights += [drawn.to(inputs.device), inputs.new_zeros(out)]
            self._optimizer = torch.optim.Adam(self._weights, lr=1e-3)
        for weight in self._weights:
            weight.requires_grad_(True)
        for _ in range(self._passes):
            order = torch.randperm(len(labels), generator=self._generator).to(labels.device)
            for rows in order.split(128):
                loss = F.cross_entropy(self._logits(inputs[rows]), labels[rows])
                self._optimizer.zero_grad()
                loss.backward()
                self._optimizer.step()
        for weight in self._weights:
            weight.requires_grad_(False)

    def __call__(self, features: Tensor) -> Tensor:
        """Return logits (B, K)."""
        if not self._weights:
            raise RuntimeError("the probe was not fitted")
        return self._logits((features - self._mean) / self._scale)

    def _logits(self, inputs: Tensor) -> Tensor:
        first, first_bias, last, last_bias = self._weights
        return (inputs @ first.T + first_bias).relu() @ last.T + last_bias


class PrototypeProbe:
    """The nearest class mean: logits are the negative squared distances to the means.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Learn from features (N, D) and labels (N,)."""
        self._means = class_means(features, labels, self._classes)
        self._absent = torch.bincount(labels, minlength=self._classes) == 0

    def __call__(self, features: Tensor) -> Tensor:
        """Return logits (B, K)."""
        distances = (features[:, None] - self._means).square().sum(dim=2)
        return (-distances).masked_fill(self._absent, -torch.inf)


class KernelProbe:
    """Neighbours by cosine: each class's mean of exp(similarity / width) over the features that were learned.

    Args:
        classes: K.
        width: Width of the kernel, > 0.
        skips_nearest: Whether the nearest one is left out, because it is likely the image's own earlier feature.
    """

    def __init__(self, classes: int, width: float = 0.05, *, skips_nearest: bool = True) -> None:
        self._classes, self._width, self._skips_nearest = classes, width, skips_nearest

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Learn from features (N, D) and labels (N,)."""
        self._known = F.normalize(features, dim=1)
        members = F.one_hot(labels, self._classes).float()
        self._shares = members / members.sum(dim=0).clamp(min=1)

    def __call__(self, features: Tensor) -> Tensor:
        """Return logits (B, K)."""
        similar = F.normalize(features, dim=1) @ self._known.T / self._width
        if self._skips_nearest:
            similar = similar.scatter(1, similar.argmax(dim=1, keepdim=True), -torch.inf)
        highest = similar.max(dim=1, keepdim=True).values.detach()
        # The small number keeps a class without a neighbour at a finite distance.
        return ((similar - highest).exp() @ self._shares + 1e-6).log()


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the mean feature of each class, (K, D); zeros where a class has no feature."""
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    sums = features.new_zeros(classes, features.shape[1]).index_add(0, labels, features)
    return sums / counts[:, None]


class FeatureMemory:
    """The last features that a student gave, which cost nothing because training computes them anyway.

    Args:
        features: (N, D) float32 to begin with.
        labels: (N,) int64.
        passes: Passes over the images that are remembered; each image is there in as many augmented forms.
    """

    def __init__(self, features: Tensor, labels: Tensor, passes: int = 1) -> None:
        self.features, self.labels = features.repeat(passes, 1), labels.repeat(passes)
        self._next = 0

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Put features (B, D) and labels (B,) in the place of the oldest ones; B may be at most N."""
        places = (self._next + torch.arange(len(labels), device=labels.device)) % len(self.labels)
        self.features[places], self.labels[places] = features.detach().float(), labels
        self._next = (self._next + len(labels)) % len(self.labels)
