"""The rules of what trains on retain images alone, written out a second time for the tiny network."""

import pytest
import torch
from tiny import Sgd, assert_same, entropy, images_of, network, student_of, task_of
from torch import nn

from unlearnbench_zoo.fine_tuning import cf_k, eu_k, l1_sparse, last_layers


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
