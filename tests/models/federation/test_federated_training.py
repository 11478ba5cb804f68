"""Federated averaging: what a round makes of what the parties send, and how a training goes on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unlearnbench.datasets.dataset import open_dataset
from unlearnbench.models import training
from unlearnbench.models.build import Network
from unlearnbench.models.device_data import LoadedData
from unlearnbench.models.federation.federation import Federation
from unlearnbench.models.federation.shares import party_counts, party_images
from unlearnbench.models.federation.training import FederatedTraining, accuracy_on, averaged
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.models.training import ReferenceTraining

NETWORK = Network("digits_net", {"width": 4}, 10, (1, 8, 8))
FEDERATION = Federation(parties=4, rounds=3, local_epochs=2)
RECIPE = TrainingRecipe(
    epochs=6, batch_size=64, learning_rate=0.1, schedule="one_cycle", padding=1, precision="float32"
)
DATA = LoadedData(open_dataset("digits"), RECIPE, torch.device("cpu"))
COUNTS = DATA.dataset.info.train_counts


def shares(federation: Federation, seed: int = 0) -> list[Tensor]:
    counts = party_counts(federation, COUNTS, seed)
    return [torch.from_numpy(part) for part in party_images(DATA.train_part.labels, counts, seed)]


def job(
    federation: Federation = FEDERATION, recipe: TrainingRecipe = RECIPE, model: nn.Module | None = None, **more: Any
) -> FederatedTraining:
    return FederatedTraining(
        model if model is not None else NETWORK.build(0, "original"),
        DATA.train,
        torch.arange(len(DATA.train)),
        recipe,
        0,
        "original",
        federation=federation,
        parties=more.pop("parties", None) or shares(federation),
        **more,
    )


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_mean_is_weighted_by_images() -> None:
    states = [
        {"weight": torch.tensor([1.0, 2.0]), "batches": torch.tensor(3)},
        {"weight": torch.tensor([5.0, 0.0]), "batches": torch.tensor(8)},
    ]
    mean = averaged([(states[0], 30), (states[1], 10)])
    assert mean["weight"].tolist() == [2.0, 1.5]
    # 4.25 batches are none, and a count stays a whole number.
    assert (mean["batches"].item(), mean["batches"].dtype) == (4, torch.int64)


def test_one_party_alone_trains_as_if_there_were_no_federation_but_for_its_momentum() -> None:
    # With one round there is nobody to average with, and the parties that hold nothing send nothing.
    alone = Federation(parties=2, rounds=1, local_epochs=6)
    parties = [torch.arange(100), torch.arange(0)]
    one = job(alone, parties=parties)
    one.train()
    central = ReferenceTraining(NETWORK.build(0, "original"), DATA.train, torch.arange(100), RECIPE, 0, "original")
    for epoch in range(6):
        central._pass(torch.arange(100), epoch, 0, "party", 0, epoch)
    assert one.rounds == [(0,)]
    assert same(one.model.state_dict(), central.model.state_dict())


def test_a_round_is_the_mean_of_what_each_party_makes_of_the_server_s_weights() -> None:
    federation, recipe = Federation(parties=3, rounds=1), RECIPE.model_copy(update={"epochs": 1})
    start = NETWORK.build(0, "original")
    whole = job(federation, recipe, copy.deepcopy(start))
    whole.train()
    expected: dict[str, Any] = {}
    for party, images in enumerate(shares(federation)):
        one = ReferenceTraining(copy.deepcopy(start), DATA.train, images, recipe, 0, "original")
        one._pass(images, 0, 0, "party", party, 0)
        for name, value in one.model.state_dict().items():
            expected[name] = expected.get(name, 0) + value.numpy().astype(np.float64) * len(images) / len(DATA.train)
    for name, value in whole.model.state_dict().items():
        assert value.numpy() == pytest.approx(expected[name], abs=1e-6), name


@pytest.mark.slow
def test_the_federation_learns_the_digits() -> None:
    recipe = RECIPE.model_copy(update={"epochs": 10, "batch_size": 16})
    test = torch.arange(len(DATA.test))
    whole = job(Federation(parties=4, rounds=10), recipe, accuracy=lambda model: accuracy_on(model, DATA.test, test))
    whole.train()
    assert len(whole.accuracies) == 10
    assert whole.accuracies[-1] > 0.85 > whole.accuracies[0]
    # The test accuracy counted by hand.
    with torch.no_grad():
        hits = whole.model(DATA.test.plain(test)).argmax(dim=1) == DATA.test.labels
    assert whole.accuracies[-1] == pytest.approx(hits.float().mean().item(), abs=1e-6)


def test_fedprox_stays_nearer_to_the_round_s_first_weights() -> None:
    recipe = RECIPE.model_copy(update={"epochs": 3})
    start = NETWORK.build(0, "original")

    def moved(**settings: Any) -> float:
        one = job(Federation(parties=4, rounds=1, local_epochs=3, **settings), recipe, copy.deepcopy(start))
        one.train()
        pairs = zip(one.model.parameters(), start.parameters(), strict=True)
        return sum(float((after - before).detach().square().sum()) for after, before in pairs)

    free, held = moved(), moved(strategy="fedprox", proximal=1.0)
    assert moved(strategy="fedprox", proximal=1e-12) == pytest.approx(free, rel=1e-4)
    assert 0 < held < 0.8 * free


def test_fedprox_s_gradient_is_its_weight_times_the_distance() -> None:
    one = job(Federation(parties=4, rounds=1, strategy="fedprox", proximal=0.5))
    first = {name: value.clone() - 0.25 for name, value in one.model.state_dict().items()}
    one._pull(first)().backward()
    for value in one.model.parameters():
        assert value.grad is not None
        assert value.grad.flatten().tolist() == pytest.approx([0.125] * value.numel(), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("rounds_before", [1, 2])
@pytest.mark.parametrize("settings", [{}, {"participation": 0.5}, {"strategy": "fedprox", "proximal": 0.1}])
def test_a_federation_taken_up_again_ends_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds_before: int, settings: dict[str, Any]
) -> None:
    federation = FEDERATION.model_copy(update=settings)
    judged = {"accuracy": lambda model: accuracy_on(model, DATA.test, torch.arange(100))}
    never = job(federation, **judged)
    never.train()
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    original = FederatedTraining._pass

    def killed(one: FederatedTraining, *arguments: Any, **more: Any) -> None:
        if one.epoch == rounds_before and arguments[4] == one.rounds[one.epoch][-1]:
            raise KeyboardInterrupt
        original(one, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(FederatedTraining, "_pass", killed)
        with pytest.raises(KeyboardInterrupt):
            job(federation, **judged).train(tmp_path / "checkpoint.pt")
    read: list[int] = []
    again = job(federation, model=NETWORK.build(5, "original"), advance=read.append, **judged)
    again.train(tmp_path / "checkpoint.pt")
    assert same(never.model.state_dict(), again.model.state_dict())
    assert again.accuracies == never.accuracies
    assert sum(read) == never.image_passes == again.image_passes
    assert read[0] == never.image_passes - sum(read[1:]) > 0


def test_a_checkpoint_of_another_federation_is_named_and_dropped(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    job().save(checkpoint)
    said: list[str] = []
    other = job(FEDERATION.model_copy(update={"strategy": "fedprox", "proximal": 0.1}), say=said.append)
    other.train(checkpoint)
    assert said == [f"{checkpoint} is that of another training; the training starts anew"]


def test_the_bytes_are_those_of_every_tensor_there_and_back() -> None:
    one = job(Federation(parties=4, rounds=3, participation=0.5))
    size = sum(value.numel() * value.element_size() for value in one.model.state_dict().values())
    assert one.bytes_sent == {"to_parties": 6 * size, "from_parties": 6 * size}


def test_what_an_engine_remembers_is_taken_up_with_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_momentum(one: FederatedTraining, drawn: Sequence[int]) -> dict[str, Tensor]:
        before = {name: value.clone() for name, value in one.model.state_dict().items()}
        mean = averaged(one.sent(drawn))
        one.memory = {name: 0.5 * one.memory.get(name, 0) + mean[name] - before[name] for name in mean}
        return {name: (before[name] + one.memory[name]).to(before[name].dtype) for name in mean}

    federation = FEDERATION.model_copy(update={"engine": "theirs"})
    never = job(federation, average=with_momentum)
    never.train()
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    def killed(one: FederatedTraining, drawn: Sequence[int]) -> dict[str, Tensor]:
        if one.epoch == 2:
            raise KeyboardInterrupt
        return with_momentum(one, drawn)

    with pytest.raises(KeyboardInterrupt):
        job(federation, average=killed).train(tmp_path / "checkpoint.pt")
    again = job(federation, average=with_momentum, model=NETWORK.build(5, "original"))
    again.train(tmp_path / "checkpoint.pt")
    assert same(never.model.state_dict(), again.model.state_dict())
