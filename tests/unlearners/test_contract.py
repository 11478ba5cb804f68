"""Broken toy unlearners show that each check of the conformance kit can fail."""

import copy
import gc
import random
from typing import Any

import numpy as np
import pytest
import torch
from support.plugins import built_in
from torch import nn

from unlearnbench.errors import NotApplicable
from unlearnbench.models.classifier import keep_outputs
from unlearnbench.registry.declare import Range, declare
from unlearnbench.registry.entry_points import find
from unlearnbench.unlearners.contract import ConformanceError, check_unlearner, examine
from unlearnbench.unlearners.task import UnlearningTask
from unlearnbench.unlearners.toy_problem import small_problem


@pytest.mark.slow
@pytest.mark.parametrize("name", built_in("unlearners"))
def test_every_built_in_unlearner_keeps_to_the_contract(name: str) -> None:
    results = check_unlearner(find("unlearners", name).load())
    assert len(results) == 11
    assert {result.status for result in results} <= {"passed", "exempt"}


def good(model: nn.Module, task: UnlearningTask) -> nn.Module:
    keep_outputs(model, task.retain_classes)
    return model


def returns_nothing(model: nn.Module, task: UnlearningTask) -> None:
    return None


def returns_logits_that_are_not_finite(model: nn.Module, task: UnlearningTask) -> nn.Module:
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    return model


def returns_other_outputs(model: nn.Module, task: UnlearningTask) -> nn.Module:
    model[-1] = nn.Linear(model[-1].in_features, 3)
    return model


CALLS = [0]


def counts_its_calls(model: nn.Module, task: UnlearningTask) -> nn.Module:
    CALLS[0] += 1
    with torch.no_grad():
        model[-1].bias.add_(0.001 * CALLS[0])
    return good(model, task)


def changes_the_original(model: nn.Module, task: UnlearningTask) -> nn.Module:
    original = small_problem().original
    with torch.no_grad():
        next(original.parameters()).add_(1.0)
    return good(model, task)


def changes_the_images(model: nn.Module, task: UnlearningTask) -> nn.Module:
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor and thing is task._data._images:
            thing.fill_(0)
    return good(model, task)


def seeds_torch(model: nn.Module, task: UnlearningTask) -> nn.Module:
    torch.manual_seed(0)
    return good(model, task)


def seeds_everything(model: nn.Module, task: UnlearningTask) -> nn.Module:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    return good(model, task)


def does_nothing(model: nn.Module, task: UnlearningTask) -> nn.Module:
    return model


def destroys_everything(model: nn.Module, task: UnlearningTask) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def untyped_option(model: nn.Module, task: UnlearningTask, *, epochs=3) -> nn.Module:
    return good(model, task)


def takes_anything(model: nn.Module, task: UnlearningTask, **options: Any) -> nn.Module:
    return good(model, task)


def takes_no_task(model: nn.Module) -> nn.Module:
    return model


@declare(ranges={"rates": Range(0.1, 1.0)})
def searches_what_it_does_not_have(model: nn.Module, task: UnlearningTask, *, rate: float = 0.1) -> nn.Module:
    return good(model, task)


@declare(ranges={"rate": (0.1, "fast")}, check_options={"epoch": 1}, exempt={"forget": "a control"})  # type: ignore[dict-item]
def declares_what_does_not_fit(model: nn.Module, task: UnlearningTask, *, rate: float = 0.1) -> nn.Module:
    return good(model, task)


@declare(ranges={"rate": Range(1.0, 0.1)})
def searches_backwards(model: nn.Module, task: UnlearningTask, *, rate: float = 0.1) -> nn.Module:
    return good(model, task)


def raises(model: nn.Module, task: UnlearningTask) -> nn.Module:
    raise ValueError("no such layer")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unlearner", "check", "message"),
    [
        (
            untyped_option,
            "options have types and defaults",
            "option 'epochs' of {here}:untyped_option needs a type and a default",
        ),
        (takes_no_task, "options have types and defaults", "takes 1 positional arguments, not 2 (model, task)"),
        (
            takes_anything,
            "unknown options are refused",
            "takes **options, so that a misspelt option would pass unseen; name each option",
        ),
        (
            searches_what_it_does_not_have,
            "declares what fits its options",
            "ranges: unlearner has no option 'rates'\n  Did you mean 'rate'? Its options: rate (float, 0.1)",
        ),
        (
            declares_what_does_not_fit,
            "declares what fits its options",
            "check_options: unlearner has no option 'epoch'\n  Its options: rate (float, 0.1); "
            "ranges: 'fast' does not fit option 'rate' (float, default 0.1): input should be a valid number; "
            "exempt: 'forget' is none of forgets, retains",
        ),
        (searches_backwards, "declares what fits its options", "ranges: rate goes from 1.0 to 0.1"),
        (raises, "runs with its defaults", "ValueError: no such layer"),
        (returns_nothing, "returns a model with finite outputs", "returned NoneType, not a torch.nn.Module"),
        (returns_logits_that_are_not_finite, "returns a model with finite outputs", "logits are not finite"),
        (
            returns_other_outputs,
            "returns a model with finite outputs",
            "its 3 outputs do not stand for the retain classes",
        ),
        (
            counts_its_calls,
            "is repeatable",
            "two runs with the same seed gave different models; draw random numbers from task.generator or torch",
        ),
        (
            changes_the_original,
            "leaves the original model as it is",
            "the original model was changed; only the copy that is given may be",
        ),
        (
            changes_the_images,
            "leaves the limited data as they are",
            "the limited images or labels were changed in place; work on a copy",
        ),
        (
            seeds_torch,
            "leaves the random state's seed to the harness",
            "seeds the global random state of torch; use task.generator",
        ),
        (
            seeds_everything,
            "leaves the random state's seed to the harness",
            "seeds the global random state of torch and numpy and random; use task.generator",
        ),
    ],
)
def test_a_broken_unlearner_fails_its_check(unlearner: Any, check: str, message: str) -> None:
    failed = {result.check: result.message for result in examine(unlearner) if result.status == "failed"}
    assert failed[check] == message.format(here=__name__)


@pytest.mark.parametrize(
    ("unlearner", "check"), [(does_nothing, "forget accuracy falls"), (destroys_everything, "retain accuracy holds")]
)
def test_behaviour_that_is_promised_and_not_shown_fails(unlearner: Any, check: str) -> None:
    failed = [result.check for result in examine(unlearner) if result.status == "failed"]
    assert failed == [check]


def test_all_failed_checks_stand_in_the_message() -> None:
    with pytest.raises(ConformanceError) as caught:
        check_unlearner(does_nothing)
    first, second = str(caught.value).splitlines()
    assert first == "does_nothing fails 1 of 11 checks"
    assert second.startswith("  forget accuracy falls: 9")
    assert second.endswith(" % after; at most half of it is expected")


def test_a_declared_exemption_is_reported_with_its_reason() -> None:
    exempt = declare(exempt={"forgets": "it is a control"})(lambda model, task: does_nothing(model, task))
    results = {result.check: result for result in check_unlearner(exempt)}
    assert results["forget accuracy falls"].status == "exempt"
    assert results["forget accuracy falls"].message.startswith("it is a control (")


def test_not_applicable_is_no_failure() -> None:
    def needs_attention(model: nn.Module, task: UnlearningTask) -> nn.Module:
        raise NotApplicable("needs attention layers")

    last = check_unlearner(needs_attention)[-1]
    assert (last.status, last.message) == ("not applicable", "needs attention layers")


def test_the_small_problem_is_worth_unlearning() -> None:
    problem = small_problem()
    assert problem.accuracy(problem.original, forget=True) > 0.9
    assert problem.accuracy(problem.original, forget=False) > 0.95
    start = copy.deepcopy(problem.start)
    assert problem.accuracy(start, forget=False) < 0.4
