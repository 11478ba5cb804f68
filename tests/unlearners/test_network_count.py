"""How many networks an unlearner runs, and what it reads, as the conformance check counts them."""

import copy

import pytest
import torch
from support.commands import cli, python
from torch import nn

from unlearnbench.registry.entry_points import find
from unlearnbench.unlearners.contract import _counts, _run
from unlearnbench.unlearners.network_count import networks_that_run
from unlearnbench.unlearners.task import UnlearningTask


def teacher_and_fresh(model: nn.Module, task: UnlearningTask) -> nn.Module:
    teacher, fresh = copy.deepcopy(model), task.fresh_model()
    for images, _ in task.plain("forget", batch_size=5):
        for network in (model, teacher, model, fresh):
            network(images)
        model[:3](images)
    return model


def one_after_another(model: nn.Module, task: UnlearningTask) -> nn.Module:
    images = task.images_of(0)
    for _ in range(4):
        copy.deepcopy(model)(images)
    return model


def part_by_part(model: nn.Module, task: UnlearningTask) -> nn.Module:
    assert isinstance(model, nn.Sequential)
    images = task.images_of(0)
    for layers in (model, copy.deepcopy(model)):
        for layer in layers:
            images = layer(images)
        images = task.images_of(0)
        layers(images)
        nn.Sequential.forward(layers, images)
    return model


def breaks(model: nn.Module, task: UnlearningTask) -> nn.Module:
    model(torch.zeros(1))
    return model


def test_images_and_networks_are_counted() -> None:
    found = _run(teacher_and_fresh, {}, global_seed=1)
    assert (found.task.image_passes, found.networks) == ({"forget": 28, "retain": 0}, 3)
    assert _counts(found) == "28 passes of 28 forget images and 0 of 112 retain images, 3 networks"
    assert _run(one_after_another, {}, global_seed=1).networks == 4


def test_a_part_that_is_called_by_itself_is_no_network_of_its_own() -> None:
    with networks_that_run(nn.Linear(1, 1)) as networks:
        model = nn.Sequential(nn.Linear(4, 9), nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9)))
        model[1](model[0](torch.rand(2, 4)))
        assert networks.number == 2
        model(torch.rand(2, 4))
        assert networks.number == 1
        model[1][0](torch.rand(2, 9))
        copy.deepcopy(model)[1](torch.rand(2, 9))
        assert networks.number == 2
    assert _run(part_by_part, {}, global_seed=1).networks == 2


def test_what_a_failed_method_left_open_is_not_taken_over() -> None:
    with pytest.raises(RuntimeError):
        _run(breaks, {}, global_seed=1)
    assert _run(teacher_and_fresh, {}, global_seed=1).networks == 3


@pytest.mark.parametrize(
    ("name", "forget", "retain", "networks"),
    [("wd", 0, 0, 0), ("folnrc", 0, 1120, 1), ("folnrc_kd", 0, 1120, 2), ("tslnrc", 0, 1120, 1)],
)
def test_counts_of_built_ins(name: str, forget: int, retain: int, networks: int) -> None:
    found = _run(find("unlearners", name).load(), {}, global_seed=1)
    assert (found.task.image_passes, found.networks) == ({"forget": forget, "retain": retain}, networks)


def test_the_relevance_search_runs_no_network_beside_the_original_and_the_teacher() -> None:
    assert _run(find("unlearners", "erwp").load(), {}, global_seed=1).networks == 2


def test_check_says_what_a_method_reads_and_runs() -> None:
    lines = cli("check", "wd").out.splitlines()
    counted = "runs with its defaults: 0 passes of 28 forget images and 0 of 112 retain images, 0 networks"
    assert f"{'passed':<15} {counted}" in lines


def test_show_neither_trains_nor_imports_torch() -> None:
    code = (
        "import sys; sys.argv = ['unlearnbench', 'show', 'erwp']\n"
        "from unlearnbench.frontends.cli import main\n"
        "try: main()\nfinally: print('torch' in sys.modules)"
    )
    assert python("-c", code).out.splitlines()[-1] == "False"
