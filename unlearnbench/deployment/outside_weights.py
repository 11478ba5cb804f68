"""Weights that were unlearned elsewhere, judged on the problem of a manifest beside its references and methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from safetensors import safe_open
from scipy.optimize import linear_sum_assignment

from unlearnbench.deployment.class_names import class_list, classes_of
from unlearnbench.deployment.first_look import BETTER, counted
from unlearnbench.engine.artifacts.unlearned import filled_judged
from unlearnbench.engine.engines.crew import device_precision
from unlearnbench.engine.executor import finish
from unlearnbench.engine.recording import plan_for
from unlearnbench.errors import DatasetError, InvalidFileError, UnlearnBenchError, WrongUseError
from unlearnbench.experiment.components import JudgedMethod, judged_method
from unlearnbench.experiment.manifest import Label
from unlearnbench.experiment.plan import Plan, make_plan
from unlearnbench.experiment.problem import Problem
from unlearnbench.experiment.resolve import Resolved, resolve
from unlearnbench.models.build import Network, input_shape
from unlearnbench.models.checkpoints import outputs_in
from unlearnbench.models.classifier import OUTPUT_CLASSES
from unlearnbench.models.recipe import read_recipe
from unlearnbench.models.weights import find_weights
from unlearnbench.registry.component import label_slug
from unlearnbench.results.records.record import Record
from unlearnbench.terms import REFERENCES

_LABEL = TypeAdapter[str](Label)


@dataclass(frozen=True)
class Outside:
    """What a user says about weights from elsewhere.

    Attributes:
        checkpoint: Path of the weights, from the working folder.
        label: Name of their row; "" takes the file's name.
        seed: Seed whose references they are judged beside; None takes the manifest's only one.
        class_order: Class of each output, as names or indices; empty for the order of the original's checkpoint.
    """

    checkpoint: Path
    label: str = ""
    seed: int | None = None
    class_order: tuple[str, ...] = ()


def judge(
    outside: Outside, manifest: Path, output: Path, device: str, console: Console, say: Callable[[str], None]
) -> list[Record]:
    """Judge weights from elsewhere on the problem of a manifest.

    Args:
        outside: The weights, and what the user says about them.
        manifest: Manifest of the problem. References that the output folder does not have are made.
        output: Output folder.
        device: Device to compute on, as in `run`.
        console: Console that shows progress.
        say: Callback that receives a line when the user should know something.

    Returns:
        The records of the references and of the weights.

    Raises:
        ManifestError: If the manifest has faults.
        InvalidFileError: If the weights do not fit the network, or their outputs not the classes.
        UnlearnBenchError: If label, seed or class order are not possible.
    """
    resolved = resolve(manifest)
    problem = _only_problem(resolved)
    label = outside.label or outside.checkpoint.name.partition(".")[0]
    check_label(label, resolved)
    seed = chosen_seed(resolved, outside.seed)
    method = _method(outside, label, problem)
    _check_order(method, resolved, problem, say)
    plan = judged_plan(plan_for(resolved, output, device_precision(device), (), say), method, seed)
    return finish(plan, output, device, console=console, say=say)


def _only_problem(resolved: Resolved) -> Problem:
    if len(resolved.problems) > 1:
        raise UnlearnBenchError(
            f"{resolved.file}: holds {len(resolved.problems)} problems, and weights are an answer to one\n"
            "  Give a manifest of that problem alone"
        )
    return resolved.problems[0]


def check_label(label: str, resolved: Resolved) -> None:
    """Check that a label can name a row beside those of a manifest.

    Raises:
        UnlearnBenchError: If it cannot, or it is taken.
    """
    try:
        _LABEL.validate_python(label)
    except ValidationError:
        raise UnlearnBenchError(
            f"--label {label}: not a label\n"
            "  At most 100 letters, digits, spaces and . _ = + , - that begin with a letter or a digit"
        ) from None
    taken = {label_slug(name).casefold() for name in (*REFERENCES, *(method.label for method in resolved.methods))}
    if label_slug(label).casefold() in taken:
        raise UnlearnBenchError(f"--label {label}: {resolved.file} has a method of this label\n  Give another --label")


def chosen_seed(resolved: Resolved, seed: int | None) -> int:
    """Return the seed whose references weights are judged beside: the one asked for, or the manifest's only one.

    Raises:
        UnlearnBenchError: If the manifest has several seeds and none is asked for, or not the one that is.
    """
    seeds = resolved.manifest.seeds
    if seed is not None and seed in seeds:
        return seed
    listed = " | ".join(map(str, seeds))
    if seed is not None:
        raise UnlearnBenchError(f"--seed {seed}: {resolved.file} has no such seed\n  Its seeds: {listed}")
    if len(seeds) > 1:
        raise UnlearnBenchError(
            f"{resolved.file}: has {len(seeds)} seeds, and weights are one model, made from the Original of one\n"
            f"  Say which: --seed {listed}"
        )
    return seeds[0]


def judged_plan(plan: Plan, method: JudgedMethod, seed: int) -> Plan:
    """Return the plan that judges weights beside the references of one seed; the records keep the manifest as it is."""
    resolved = replace(plan.resolved, methods=(*plan.resolved.methods, method))
    every = make_plan(resolved, (method.label,), plan.precision)
    return Plan(plan.resolved, tuple(cell for cell in every.cells if cell.seed == seed), plan.precision)


def network_of(problem: Problem) -> Network:
    """Return how the network of a problem is built."""
    architecture, info = problem.architecture, problem.info
    shape = input_shape(info.shape, read_recipe(problem.recipe))
    return Network(architecture.address, architecture.options, len(info.class_names), shape)


def _method(outside: Outside, label: str, problem: Problem) -> JudgedMethod:
    """Return the weights as a method.

    Raises:
        InvalidFileError: If the file is not a checkpoint, or nothing says which classes its outputs stand for.
    """
    path, names = outside.checkpoint, problem.info.class_names
    if not path.is_file():
        raise WrongUseError(f"{path}: no such file")
    try:
        weights = find_weights(problem.architecture.address, str(path), Path())
    except DatasetError as error:
        raise InvalidFileError(str(error)) from error
    count = outputs_in(path, network_of(problem).unfilled())
    told = _told_outputs(path)
    given = classes_of(outside.class_order, names, "--class-order")
    usual = problem.weights.class_order if problem.weights and problem.weights.class_order else tuple(range(len(names)))
    outputs = given or told or usual
    if len(outputs) != count:
        source = "--class-order names" if given else "the file names" if told else f"{problem.info.name} has"
        raise InvalidFileError(
            f"{path}: has {count} outputs, {source} {len(outputs)} classes\n"
            "  Say the class of each output in their order: --class-order NAME,NAME,..."
        )
    return judged_method(weights, outputs, label)


def _told_outputs(path: Path) -> tuple[int, ...]:
    """Return the class of each output as `export-model` writes it into a safetensors file; empty if there is none."""
    if path.suffix != ".safetensors":
        return ()
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(OUTPUT_CLASSES, "")
    parts = text.split()
    return tuple(map(int, parts)) if parts and all(part.isdigit() for part in parts) else ()


def _check_order(method: JudgedMethod, resolved: Resolved, problem: Problem, say: Callable[[str], None]) -> None:
    """Check on the classes that stay that outputs stand in the order that is assumed, and say how much they know.

    Raises:
        InvalidFileError: If the weights do not fit the network, or another order makes far more images right.
    """
    names, name = problem.info.class_names, method.weights.label
    model = filled_judged(network_of(problem), method, lambda line: None).eval()
    # The model's outputs stand in the order of their classes, those of the file in its own.
    columns = np.argsort(np.argsort(method.outputs))
    counts = counted(model, resolved.dataset, read_recipe(problem.recipe))[:, columns]
    stay = np.array(problem.retain_classes)
    total = int(counts[stay].sum())
    right = sum(int(counts[label, number]) for number, label in enumerate(method.outputs) if label in stay)
    share = f"{100 * right / total:.1f} % of {total} test images of the classes that stay"
    say(f"{name}: recognises {share}")
    rows, found = linear_sum_assignment(-counts[stay])
    best = int(counts[stay][rows, found].sum())
    if best >= right + BETTER * total:
        seeming = dict(zip(found.tolist(), stay[rows].tolist(), strict=True))
        order = class_list([seeming.get(number, -1) for number in range(len(method.outputs))], names)
        raise InvalidFileError(
            f"{name}: its outputs seem to stand in another order than is assumed, which makes {share} right, and "
            f"another {100 * best / total:.1f} %\n"
            "  Say the class of each output in their order; what these images suggest, with ? where they say nothing:\n"
            f"  --class-order {order}"
        )
