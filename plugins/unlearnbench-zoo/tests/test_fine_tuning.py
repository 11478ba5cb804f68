"""The rules of what trains on retain images alone, written out a second time for the tiny network."""

import math

import pytest
import torch
from tiny import Adam, Sgd, assert_same, entropy, images_of, network, student_of, task_of
from torch import nn

from unlearnbench_zoo.features.cola import cola, contrastive_loss
from unlearnbench_zoo.weights.fine_tuning import cf_k, eu_k, l1_sparse, last_layers


def test_l1_sparse_adds_a_norm_that_falls_epoch_by_epoch() -> None:
    task, expected = task_of(), student_of(network())
    images, labels = images_of(task, "retain")
    hand = Sgd(expected, 0.05, 0.9, 0.01)
    for weight in (0.02, 0.02 * 2 / 3, 0.02 / 3):
        norm = sum(parameter.abs().sum() for parameter in expected.parameters())
        hand.step(entropy(expected(images), labels) + weight * norm)
    found = l1_sparse(network(), task, alpha=0.02, epochs=3, learning_rate=0.05, weight_decay=0.01)
    assert_same(found, expected)
    assert task.image_passes == {"forget": 0, "retain": 36}


def by_hand(start: nn.Linear) -> nn.Module:
    """Return two epochs in which the classifier alone descends, from given weights."""
    task, expected = task_of(), network()
    images, labels = images_of(task, "retain")
    expected[4].load_state_dict(start.state_dict())
    with torch.no_grad():
        features = expected[:4](images)
    hand = Sgd(expected[4], 0.1, 0.9)
    for _ in range(2):
        hand.step(entropy(expected[4](features), labels))
    return expected


@pytest.mark.parametrize(("method", "start"), [(cf_k, network()[4]), (eu_k, network(7)[4])])
def test_the_last_layer_alone_is_trained_kept_or_anew(method: object, start: nn.Linear) -> None:
    task, before = task_of(), network()
    after = method(network(), task, layers=1, epochs=2, batch_size=12, learning_rate=0.1, momentum=0.9)
    assert_same(after, by_hand(start))
    for name in before[:4].state_dict():
        assert torch.equal(before[:4].state_dict()[name], after[:4].state_dict()[name]), name
    assert task.image_passes == {"forget": 0, "retain": 24}
    assert all(parameter.requires_grad for parameter in after.parameters())


def test_layers_are_counted_from_the_last_and_take_their_norms_along() -> None:
    model = network()
    assert list(last_layers(model, 1)) == ["4"]
    assert list(last_layers(model, 2)) == ["0", "1", "4"]
    assert list(last_layers(model, 9)) == ["0", "1", "4"]


def test_exact_unlearning_of_every_layer_starts_as_the_original_did() -> None:
    found = eu_k(network(), task_of(), layers=2, epochs=0)
    assert all(torch.equal(p, q) for p, q in zip(found.parameters(), network(7).parameters(), strict=True))


def hand_contrast(features: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the supervised contrastive loss, image by image and pair by pair."""
    z = [row / (row**2).sum().sqrt() for row in features]
    every = range(len(z))
    losses = []
    for i in every:
        same = [p for p in every if p != i and labels[p] == labels[i]]
        below = sum(torch.exp(z[i] @ z[a] / temperature) for a in every if a != i)
        if same:
            losses.append(sum(-torch.log(torch.exp(z[i] @ z[p] / temperature) / below) for p in same) / len(same))
    return torch.stack(losses).mean()


def test_cola_collapses_the_features_and_then_aligns_the_whole_network() -> None:
    task, expected = task_of(), student_of(network())
    images, labels = images_of(task, "retain")
    body = Adam(expected[:4], 0.01)
    for _ in range(2):
        body.step(hand_contrast(expected[:4](images), labels, 0.5))
    assert torch.equal(expected[4].weight, network()[4].weight)
    whole = Adam(expected, 0.01)
    whole.step(entropy(expected(images), labels))
    found = cola(network(), task, collapse_epochs=2, epochs=1, learning_rate=0.01, temperature=0.5)
    assert_same(found, expected, tolerance=1e-4)
    assert task.image_passes == {"forget": 0, "retain": 36}


def test_the_contrastive_loss_by_hand() -> None:
    """Two alike images of one class, and one of another at right angles: both have log(1 + exp(-2)) at t = 1/2."""
    features = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    found = contrastive_loss(features, torch.tensor([0, 0, 1]), 0.5)
    assert found.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)
    found.backward()
    assert bool(torch.isfinite(features.grad).all())


def test_a_batch_without_two_images_of_a_class_moves_nothing() -> None:
    features = torch.randn(3, 2, requires_grad=True)
    contrastive_loss(features, torch.tensor([0, 1, 2]), 0.1).backward()
    assert torch.equal(features.grad, torch.zeros(3, 2))
