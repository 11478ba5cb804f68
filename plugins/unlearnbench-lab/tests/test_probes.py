"""Probes find what scikit-learn's find, and the push off them is the one written on the page."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from unlearnbench.metrics.builtin.recovery import LinearProbe

from unlearnbench_lab.probes import (
    DiscriminantProbe,
    FeatureMemory,
    KernelProbe,
    LogisticProbe,
    NetworkProbe,
    PrototypeProbe,
    RidgeProbe,
    class_means,
    unlikely,
)


def digits(each: int = 100) -> tuple[Tensor, Tensor]:
    """Return the same number of images of each digit, (10 * each, 64) and labels."""
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    chosen = torch.cat([torch.nonzero(labels == label).flatten()[:each] for label in range(10)])
    return images[chosen].float() / 16, labels[chosen].long()


def test_unlikely_counted_by_hand() -> None:
    # Softmax probabilities of the labels: 1/4 and 1/2.
    logits = torch.tensor([[0.0, math.log(3.0)], [1.0, 1.0]], requires_grad=True)
    loss = unlikely(logits, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx((-math.log(3 / 4) - math.log(1 / 2)) / 2)
    loss.backward()
    # d/dz_y of -log(1 - p) is p, and with two classes the other logit's is -p; the mean halves both.
    assert logits.grad is not None
    assert torch.allclose(logits.grad, torch.tensor([[0.125, -0.125], [-0.25, 0.25]]))


def test_unlikely_ends_by_itself() -> None:
    gone = torch.tensor([[-30.0, 30.0]], requires_grad=True)
    loss = unlikely(gone, torch.tensor([0]))
    loss.backward()
    assert gone.grad is not None
    assert loss.item() < 1e-6 > gone.grad.abs().max().item()


def test_unlikely_pushes_hardest_where_nothing_but_the_class_is_found() -> None:
    sure = torch.tensor([[100.0, -100.0, -100.0]], requires_grad=True)
    loss = unlikely(sure, torch.tensor([0]))
    loss.backward()
    assert sure.grad is not None
    assert loss.item() == pytest.approx(200 - math.log(2))
    assert torch.allclose(sure.grad, torch.tensor([[1.0, -0.5, -0.5]]), atol=1e-4)


@pytest.mark.parametrize("sharpness", [1, 2, 4])
def test_a_sharper_push_ends_sooner(sharpness: int) -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [-3.0, 0.0, 1.0]], requires_grad=True)
    likely = logits.detach().softmax(dim=1)[:, 0]
    loss = unlikely(logits, torch.tensor([0, 0]), sharpness)
    series = sum(likely**power / power for power in range(sharpness, 400))
    assert loss.item() == pytest.approx(float(torch.as_tensor(series).mean()), abs=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert torch.allclose(2 * logits.grad[:, 0], likely**sharpness, atol=1e-6)


def test_ridge_probe_is_the_one_of_the_ranking() -> None:
    features, labels = digits()
    few = torch.cat([torch.arange(700), torch.arange(950, 1000)])  # Classes differ in size, and two of them are absent.
    probe = RidgeProbe(10)
    probe.fit(features[few], labels[few])
    ranked = LinearProbe(features[few].double().numpy(), labels[few].numpy(), 0.01)
    found = probe(features).argmax(dim=1)
    assert (found.numpy() == ranked.predict(features.double().numpy())).mean() > 0.995
    assert not torch.isin(found, torch.tensor([7, 8])).any()


def test_logistic_probe_is_that_of_scikit_learn() -> None:
    features, labels = digits()
    probe = LogisticProbe(10, penalty=1e-2, iterations=200)
    probe.fit(features, labels)
    inputs = (features - features.mean(dim=0)) / features.std(dim=0).clamp(min=1e-3)
    # scikit-learn weighs the sum of losses by C against half of the squared weights.
    known = LogisticRegression(C=1 / (2 * 1e-2 * len(labels)), max_iter=2000, tol=1e-8).fit(inputs, labels)
    expected = torch.from_numpy(known.predict_proba(inputs)).float()
    assert torch.allclose(probe(features).softmax(dim=1), expected, atol=2e-3)


def test_logistic_probe_goes_on_from_its_last_fit() -> None:
    features, labels = digits()
    probe = LogisticProbe(10, iterations=3)
    losses = []
    for _ in range(4):
        probe.fit(features, labels)
        losses.append(torch.nn.functional.cross_entropy(probe(features), labels).item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2


def test_discriminant_probe_is_that_of_scikit_learn() -> None:
    features, labels = digits()
    features = features[:, features.std(dim=0) > 0.1]
    probe = DiscriminantProbe(10, shrinkage=1e-6)
    probe.fit(features, labels)
    known = LinearDiscriminantAnalysis(solver="lsqr").fit(features.double(), labels)
    expected = torch.from_numpy(known.predict_proba(features.double())).float()
    assert torch.allclose(probe(features).softmax(dim=1), expected, atol=5e-3)


def test_discriminant_probe_never_finds_a_class_without_a_feature() -> None:
    features, labels = digits()
    probe = DiscriminantProbe(12)
    probe.fit(features, labels)
    assert set(probe(features).argmax(dim=1).tolist()) == set(range(10))


def test_prototype_probe_by_hand() -> None:
    probe = PrototypeProbe(3)
    probe.fit(torch.tensor([[0.0, 0.0], [0.0, 2.0], [3.0, 1.0]]), torch.tensor([0, 0, 2]))
    # The means are (0, 1) and (3, 1), and class 1 has none.
    assert probe(torch.tensor([[1.0, 1.0]])).tolist() == [[-1.0, -torch.inf, -4.0]]


def test_kernel_probe_by_hand() -> None:
    probe = KernelProbe(3, width=0.5)
    known = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 1.0], [4.0, 3.0]])
    probe.fit(known, torch.tensor([0, 0, 1, 1]))
    # The cosines with (1, 0) are 1, 0.6, 0 and 0.8, of which the first is left out.
    found = probe(torch.tensor([[5.0, 0.0]]))[0]
    shares = [math.exp((0.6 - 0.8) / 0.5) / 2, (1 + math.exp(-0.8 / 0.5)) / 2, 0.0]
    assert torch.allclose(found, (torch.tensor(shares) + 1e-6).log())


def test_kernel_probe_of_images_that_it_did_not_learn_from_keeps_the_nearest() -> None:
    probe = KernelProbe(2, skips_nearest=False)
    probe.fit(torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([0, 1]))
    assert probe(torch.tensor([[5.0, 0.1]])).argmax().item() == 0


def test_probes_leave_what_they_learn_from_and_pass_gradients_to_features() -> None:
    features, labels = digits(20)
    before = features.clone()
    for probe in (LogisticProbe(10), DiscriminantProbe(10), RidgeProbe(10), PrototypeProbe(10), KernelProbe(10)):
        probe.fit(features, labels)
        moved = features.clone().requires_grad_()
        unlikely(probe(moved), labels).backward()
        assert moved.grad is not None
        assert moved.grad.abs().sum() > 0
    assert torch.equal(features, before)
    assert not features.requires_grad


def test_class_means_by_hand() -> None:
    found = class_means(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 2]), 3)
    assert found.flatten().tolist() == [2.0, 0.0, 5.0]


def test_memory_replaces_the_oldest_features() -> None:
    memory = FeatureMemory(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 1, 2]))
    memory.add(torch.tensor([[10.0], [11.0]], requires_grad=True), torch.tensor([5, 6]))
    assert memory.features.flatten().tolist() == [10.0, 11.0, 2.0]
    assert memory.labels.tolist() == [5, 6, 2]
    memory.add(torch.tensor([[12.0], [13.0]]), torch.tensor([7, 8]))
    assert memory.features.flatten().tolist() == [13.0, 11.0, 12.0]
    assert memory.labels.tolist() == [8, 6, 7]
    assert not memory.features.requires_grad


def test_network_probe_learns_what_no_linear_probe_can_and_goes_on_from_its_last_fit() -> None:
    corners = torch.randint(2, (400, 2), generator=torch.Generator().manual_seed(0))
    features, labels = corners.float() * 2 - 1, corners.sum(dim=1) % 2
    linear = LogisticProbe(2)
    linear.fit(features, labels)
    assert (linear(features).argmax(dim=1) == labels).float().mean() < 0.8
    network = NetworkProbe(2, hidden=32, passes=10)
    losses = []
    for _ in range(8):
        network.fit(features, labels)
        losses.append(torch.nn.functional.cross_entropy(network(features), labels).item())
    assert losses == sorted(losses, reverse=True)
    assert (network(features).argmax(dim=1) == labels).float().mean() == 1.0
    moving = features.clone().requires_grad_()
    unlikely(network(moving), labels).backward()
    assert moving.grad is not None
    assert moving.grad.abs().sum() > 0


def test_a_memory_of_several_passes_holds_as_many_forms_of_each_image() -> None:
    memory = FeatureMemory(torch.zeros(4, 2), torch.arange(4), passes=2)
    memory.add(torch.ones(4, 2), torch.arange(4))
    assert memory.features.sum(dim=1).tolist() == [2.0] * 4 + [0.0] * 4
    memory.add(2 * torch.ones(4, 2), torch.arange(4))
    memory.add(3 * torch.ones(4, 2), torch.arange(4))
    assert memory.features.sum(dim=1).tolist() == [6.0] * 4 + [4.0] * 4
