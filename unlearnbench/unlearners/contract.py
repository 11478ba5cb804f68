"""The conformance check of unlearners, for plugin authors and for `unlearnbench check`."""

from __future__ import annotations

import copy
import hashlib
import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from unlearnbench.errors import NotApplicable, PluginError, UnlearnBenchError
from unlearnbench.models.classifier import classifier, output_classes
from unlearnbench.models.random_state import own_random_state
from unlearnbench.registry.declare import CHECK_OPTIONS, EXEMPTIONS, RANGES, Behaviour, Range, SearchSpace
from unlearnbench.registry.options import call_arguments, check_options, check_positional, positional_arguments, schema
from unlearnbench.unlearners.network_count import networks_that_run
from unlearnbench.unlearners.task import UnlearningTask
from unlearnbench.unlearners.toy_problem import FORGET_CLASSES, NUM_CLASSES, _hash, _logits, small_problem

Unlearner = Callable[..., nn.Module]
CheckStatus = Literal["passed", "failed", "exempt", "not applicable"]
# The check has few limited images, and an unlearner that preserves the retain classes loses no more than this on them.
RETAIN_LOSS = 0.1
UNKNOWN_OPTION = "no_method_has_this_option"


class ConformanceError(UnlearnBenchError):
    """An unlearner does not keep to the contract; the message lists the checks that failed."""

    exit_code = 1


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        check: Name of the check.
        status: Result of the check.
        message: Observation behind the result.
    """

    check: str
    status: CheckStatus
    message: str = ""


@dataclass(frozen=True)
class UnlearnerRun:
    """One run of an unlearner.

    Attributes:
        model: What the unlearner returned.
        task: Task that it was given.
        logits: (N, O) logits of the model on the limited images; empty if it is not a model.
        networks: Number of different networks that computed something: the given one, teachers, fresh ones. Weights
            that are kept in other forms (masks, importances, copies of parameters) are not counted.
    """

    model: Any
    task: UnlearningTask
    logits: Tensor
    networks: int


def check_unlearner(function: Unlearner, options: Mapping[str, Any] | None = None) -> list[CheckResult]:
    """Check that an unlearner keeps to the contract, which takes seconds on a CPU.

    It runs on a small real problem (handwritten digits, with 8 and 9 to be forgotten and 10 % of the training images
    left): with its defaults for what must always hold, and with `options` for what it promises to do.

    Args:
        function: The unlearner.
        options: Options for the checks of forgetting and retaining; None takes those that the unlearner declares.

    Returns:
        The results, none of them failed. An unlearner that raises `NotApplicable` has a single one.

    Raises:
        ConformanceError: If any check failed; the message lists every one that did.
    """
    results = list(examine(function, options))
    require_passed(getattr(function, "__name__", repr(function)), results)
    return results


def require_passed(name: str, results: Sequence[CheckResult]) -> None:
    """Require that no check of an unlearner failed.

    Raises:
        ConformanceError: If any did; the message lists every one.
    """
    failed = [result for result in results if result.status == "failed"]
    if failed:
        lines = [f"  {result.check}: {result.message}" for result in failed]
        raise ConformanceError("\n".join([f"{name} fails {len(failed)} of {len(results)} checks", *lines]))


def examine(function: Unlearner, options: Mapping[str, Any] | None = None) -> Iterator[CheckResult]:
    """Yield the results of all checks, failed ones included; see `check_unlearner`."""
    if not small_problem().is_whole:
        # An unlearner that was checked earlier broke the problem, which its own results report.
        small_problem.cache_clear()
    signature = _signature_fault(function)
    yield _result("options have types and defaults", signature)
    if signature:
        return
    yield _result("unknown options are refused", _unknown_option_fault(function))
    declared = _declaration_fault(function)
    yield _result("declares what fits its options", declared)
    if declared:
        return
    try:
        first = _run(function, {}, global_seed=1)
    except NotApplicable as reason:
        yield CheckResult("runs with its defaults", "not applicable", str(reason))
        return
    # Foreign code may raise anything, and the result says what it was.
    except Exception as error:
        yield CheckResult("runs with its defaults", "failed", f"{type(error).__name__}: {error}")
        return
    yield CheckResult("runs with its defaults", "passed", _counts(first))
    fault = _model_fault(first)
    yield _result("returns a model with finite outputs", fault)
    if fault:
        return
    yield _result("is repeatable", _repeatable_fault(function, first))
    yield from _untouched(function)
    yield from _behaviour(function, options)


def _result(check: str, fault: str) -> CheckResult:
    return CheckResult(check, "failed" if fault else "passed", fault)


def _run(function: Unlearner, values: Mapping[str, Any], *, global_seed: int) -> UnlearnerRun:
    """Run an unlearner on a copy of the original, within a global random state of its own."""
    problem = small_problem()
    task = problem.task()
    checked, faults = check_options(getattr(function, "__name__", "unlearner"), schema(function), values)
    if faults:
        raise PluginError("; ".join(faults.values()))
    given = copy.deepcopy(problem.original)
    with own_random_state(global_seed), networks_that_run(given) as networks:
        model = function(given, task, **call_arguments(function, checked))
        number = networks.number
    logits = _logits(model, problem.task()._data)[0] if isinstance(model, nn.Module) else torch.empty(0)
    return UnlearnerRun(model, task, logits, number)


def _counts(run: UnlearnerRun) -> str:
    """Return what a run read and how many networks it ran: the data card of the unlearner."""
    task, reads = run.task, run.task.image_passes
    return (
        f"{reads['forget']:,} passes of {task.size('forget')} forget images and {reads['retain']:,} of "
        f"{task.size('retain')} retain images, {run.networks} network{'s' if run.networks != 1 else ''}"
    )


def _signature_fault(function: Unlearner) -> str:
    try:
        schema(function)
        check_positional(positional_arguments(function))
    except (PluginError, TypeError, NameError, ValueError) as error:
        return str(error)
    return ""


def _unknown_option_fault(function: Unlearner) -> str:
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values()):
        return "takes **options, so that a misspelt option would pass unseen; name each option"
    faults = check_options("unlearner", schema(function), {UNKNOWN_OPTION: 1})[1]
    return "" if UNKNOWN_OPTION in faults else f"accepts the option {UNKNOWN_OPTION!r}"


def _declaration_fault(function: Unlearner) -> str:
    """Return which declared values do not fit the options, or which exemption there is none of."""
    ranges: dict[str, SearchSpace] = getattr(function, RANGES, {})
    given = [("check_options", getattr(function, CHECK_OPTIONS, {}))]
    found = []
    for name, search in ranges.items():
        values = (search.lowest, search.highest) if isinstance(search, Range) else search
        given += [("ranges", {name: value}) for value in values]
        if isinstance(search, Range) and not search.lowest < search.highest:
            found.append(f"ranges: {name} goes from {search.lowest} to {search.highest}")
    for place, options in given:
        faults = check_options("unlearner", schema(function), options)[1]
        found += [f"{place}: {fault}" for fault in faults.values()]
    unknown = sorted(set(getattr(function, EXEMPTIONS, {})) - set(get_args(Behaviour)))
    found += [f"exempt: {name!r} is none of {', '.join(get_args(Behaviour))}" for name in unknown]
    return "; ".join(dict.fromkeys(found))


def _model_fault(run: UnlearnerRun) -> str:
    model = run.model
    if not isinstance(model, nn.Module):
        return f"returned {type(model).__name__}, not a torch.nn.Module"
    expected = (len(run.task._data), len(output_classes(model)))
    if run.logits.shape != expected:
        return f"logits have shape {tuple(run.logits.shape)}, not (images, outputs) = {expected}"
    known = torch.isin(torch.arange(NUM_CLASSES), output_classes(model)).tolist()
    kept = [label for label in range(NUM_CLASSES) if label not in FORGET_CLASSES]
    if classifier(model).out_features != expected[1] or not all(known[label] for label in kept):
        return f"its {classifier(model).out_features} outputs do not stand for the retain classes"
    if not torch.isfinite(run.logits).all():
        return "logits are not finite"
    return ""


def _repeatable_fault(function: Unlearner, first: UnlearnerRun) -> str:
    again = _run(function, {}, global_seed=1)
    if again.logits.shape == first.logits.shape and torch.equal(again.logits, first.logits):
        return ""
    return "two runs with the same seed gave different models; draw random numbers from task.generator or torch"


def _untouched(function: Unlearner) -> Iterator[CheckResult]:
    """Yield whether the original, the data and the random state are left as they were, under two global seeds."""
    problem = small_problem()
    random_states = []
    data_fault = ""
    for seed in (1, 2):
        task = problem.task()
        images = _hash([task._data._images, task._data.labels])
        with own_random_state(seed):
            defaults = check_options("unlearner", schema(function), {})[0]
            function(copy.deepcopy(problem.original), task, **call_arguments(function, defaults))
            random_states.append(_random_states())
        if _hash([task._data._images, task._data.labels]) != images:
            data_fault = "the limited images or labels were changed in place; work on a copy"
    original_fault = "" if problem.is_whole else "the original model was changed; only the copy that is given may be"
    seeded = [name for name, state in random_states[0].items() if random_states[1][name] == state]
    random_fault = f"seeds the global random state of {' and '.join(seeded)}; use task.generator" if seeded else ""
    yield _result("leaves the original model as it is", original_fault)
    yield _result("leaves the limited data as they are", data_fault)
    yield _result("leaves the random state's seed to the harness", random_fault)


def _random_states() -> dict[str, str]:
    """Return hashes of the global random states, by library."""
    numpy_state = np.random.get_state(legacy=False)
    states = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": repr(numpy_state["state"]["key"].tobytes()).encode() + str(numpy_state["state"]["pos"]).encode(),
        "random": repr(random.getstate()).encode(),
    }
    return {name: hashlib.sha256(state).hexdigest() for name, state in states.items()}


def _behaviour(function: Unlearner, options: Mapping[str, Any] | None) -> Iterator[CheckResult]:
    """Yield whether forget accuracy falls to half and retain accuracy holds."""
    problem = small_problem()
    exempt: dict[str, str] = getattr(function, EXEMPTIONS, {})
    chosen = getattr(function, CHECK_OPTIONS, {}) if options is None else options
    model = _run(function, chosen, global_seed=1).model
    for check, name, forget in (
        ("forget accuracy falls", "forgets", True),
        ("retain accuracy holds", "retains", False),
    ):
        before = problem.accuracy(problem.original, forget=forget)
        after = problem.accuracy(model, forget=forget)
        good = after <= before / 2 if forget else after >= before - RETAIN_LOSS
        seen = f"{100 * before:.1f} % before, {100 * after:.1f} % after"
        if name in exempt:
            yield CheckResult(check, "exempt", f"{exempt[name]} ({seen})")
        else:
            bound = "at most half of it" if forget else f"at most {100 * RETAIN_LOSS:g} points less"
            yield CheckResult(check, "passed" if good else "failed", seen if good else f"{seen}; {bound} is expected")
