"""The cost of relearning and the speed-up."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from support.feature_files import feature_file
from torch import nn

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.cost import relearn_cost, speed_up, with_outputs_for
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.live_model import LiveModel
from unlearnbench.metrics.measurement import Costs, References
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.classifier import classifier, keep_outputs, output_classes

ADAM: dict[str, Any] = {"optimizer": "adam", "learning_rate": 0.05}
LABELS = torch.tensor([0, 1, 2] * 8)


def batches() -> Batches:
    """Return images of one pixel each, whose grey value is the class."""
    images = (LABELS * 100).to(torch.uint8)[:, None, None, None]
    return Batches(images, LABELS, (0.5,), (0.5,), Augmentation())


def linear(weight: list[float], bias: list[float]) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, len(weight)))
    with torch.no_grad():
        classifier(model).weight.copy_(torch.tensor(weight)[:, None])
        classifier(model).bias.copy_(torch.tensor(bias))
    return model


# The first model tells the grey values -1 and -0.2 apart, as 0 and 1, and never answers 2 for 0.6.
FORGETFUL = linear([-4.0, 4.0, 0.0], [-2.0, 2.0, -3.0])


def live(model: nn.Module) -> LiveModel:
    return LiveModel(lambda: copy.deepcopy(model).eval(), batches, batches, lambda: copy.deepcopy(model).eval())


def fdr(share: float = 0.0) -> tuple[FeatureFile, References]:
    """Return a file whose FAe is `share`, and references with the same FAe."""
    labels = LABELS.numpy()
    predicted = np.where(labels == 2, 0, labels)
    predicted[np.flatnonzero(labels == 2)[: round(8 * share)]] = 2
    file = feature_file(np.zeros((24, 1)), labels, forget=[2], num_classes=3, logits=np.eye(3)[predicted])
    return file, References(file, file)


def by_hand(model: nn.Module, goal: float, rate: float, steps: int) -> int:
    """Count images with a separate loop, in which each step sees all eight forget images."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    images = batches().plain(torch.nonzero(LABELS == 2).flatten())
    for step in range(steps):
        if float((model(images).argmax(dim=1) == 2).float().mean()) >= goal:
            return 8 * step
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), torch.full((8,), 2)).backward()
        optimizer.step()
    return 8 * steps


def test_it_counts_what_a_plain_loop_counts() -> None:
    file, references = fdr()

    found = relearn_cost(file, references, live(FORGETFUL), **ADAM)

    assert found == by_hand(FORGETFUL, 0.05, 0.05, 100)
    assert 0 < found < 800
    assert found.details == {"goal": 0.05, "forget_accuracy": 1.0, "reached": True}


def test_a_model_that_still_knows_costs_nothing() -> None:
    file, references = fdr()

    assert relearn_cost(file, references, live(linear([-4.0, 0.0, 9.0], [0.0, 1.0, 0.0]))) == 0.0


def test_the_goal_is_fdrs_accuracy_and_the_margin() -> None:
    file, references = fdr(share=0.5)

    found = relearn_cost(file, references, live(FORGETFUL), **ADAM, margin=0.25)

    assert found.details["goal"] == 0.75


def test_a_goal_out_of_reach_ends_with_all_images_and_says_so() -> None:
    file, references = fdr(share=1.0)

    found = relearn_cost(file, references, live(FORGETFUL), **ADAM, max_epochs=3)

    assert found == 3 * 8
    assert found.details["reached"] is False


def test_the_model_itself_stays_as_it_is() -> None:
    file, references = fdr()
    model = copy.deepcopy(FORGETFUL)
    before = copy.deepcopy(model.state_dict())

    relearn_cost(file, references, live(model), **ADAM)

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_same_seed_gives_the_same_cost_whatever_the_random_state() -> None:
    file, references = fdr()
    costs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        costs.append(relearn_cost(file, references, live(FORGETFUL), **ADAM, batch_size=3))

    assert costs[0] == costs[1]


def test_a_deleted_output_is_put_back_first() -> None:
    file, references = fdr()
    model = copy.deepcopy(FORGETFUL)
    keep_outputs(model, torch.tensor([0, 1]))

    assert relearn_cost(file, references, live(model), **ADAM) > 0


def test_outputs_are_put_back_in_the_order_of_the_classes() -> None:
    model = linear([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0])
    keep_outputs(model, torch.tensor([0, 2]))

    grown = with_outputs_for(model, [1, 3])

    assert output_classes(grown).tolist() == [0, 1, 2, 3]
    assert classifier(grown).weight.flatten().tolist() == [1.0, 0.0, 3.0, 0.0]
    assert classifier(grown).bias.tolist() == [1.0, 2.0, 3.0, 2.0]


@pytest.mark.parametrize("classes", [[], [0], [2]])
def test_a_model_with_all_outputs_is_left_alone(classes: list[int]) -> None:
    model = copy.deepcopy(FORGETFUL)

    assert with_outputs_for(model, classes) is model
    assert classifier(model).out_features == 3


def test_weights_that_are_no_numbers_end_with_a_reason() -> None:
    file, references = fdr()
    model = copy.deepcopy(FORGETFUL)
    with torch.no_grad():
        classifier(model).weight.fill_(float("nan"))

    with pytest.raises(MetricError, match="the loss of relearning is not finite"):
        relearn_cost(file, references, live(model))


def test_plain_gradient_descent_is_the_default() -> None:
    file, references = fdr()

    assert 0 < relearn_cost(file, references, live(FORGETFUL)) < 800


def test_speed_up_counts_both_kinds() -> None:
    found = speed_up(Costs(judged={"forget": 10, "retain": 40}, fdr={"forget": 0, "retain": 5000}))

    assert found == 100.0
    assert found.details["judged"] == {"forget": 10, "retain": 40}


def test_a_method_that_reads_nothing_has_no_speed_up() -> None:
    with pytest.raises(MetricError, match="no training image was read"):
        speed_up(Costs(judged={"forget": 0, "retain": 0}, fdr={"forget": 0, "retain": 5000}))
