"""unlearnbench inside Inspect: task = manifest, sample = seed, solver = unlearner, scorer = the metrics.

Inspect loads this module through its entry point. Solvers are registered by name alone, so that no plugin is imported
before it is used; their options are checked when they run, like those of a manifest.
"""

from __future__ import annotations

import math
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio.to_thread
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from unlearnbench.errors import UnlearnBenchError
from unlearnbench.experiment.plan import Cell
from unlearnbench.experiment.resolve import Resolved, resolve
from unlearnbench.registry.component import Method, used
from unlearnbench.registry.entry_points import find, names
from unlearnbench.registry.options import resolve_options
from unlearnbench.results.records.record import Record
from unlearnbench.terms import HEADLINE

# Unlearners own the global random state while they run, so that only one may run at a time.
_ONE_AT_A_TIME = threading.Lock()


@task
def unlearn(manifest: str, output: str = "runs", device: str = "auto") -> Task:
    """Let a solver unlearn on every problem and seed of a manifest; the store is that of `unlearnbench run`.

    Args:
        manifest: Path of the manifest.
        output: Output folder.
        device: Device as in `--device`.
    """
    resolved = resolve(Path(manifest))
    samples = [
        Sample(
            id=sample_id(problem.slug, seed),
            input=f"{problem.title}, seed {seed}",
            metadata={"manifest": manifest, "problem": problem.slug, "seed": seed, "output": output, "device": device},
        )
        for problem in resolved.problems
        for seed in resolved.manifest.seeds
    ]
    # A seed that fails is an error of its own sample, and the others go on.
    return Task(
        dataset=MemoryDataset(samples, name=resolved.manifest.name),
        solver=unlearner("erwp"),
        scorer=fractions(),
        fail_on_error=False,
        name="unlearn",
    )


def sample_id(slug: str, seed: int) -> str:
    """Return the id of the sample of a problem and a seed."""
    return f"{slug}/seed-{seed}"


@scorer(metrics={"*": [mean(), stderr()]})
def fractions() -> Scorer:
    """Score with the record's metrics, as fractions."""

    async def score(state: TaskState, target: Target) -> Score | None:
        found = state.metadata.get("values")
        return scored(found, state.output.completion) if found else None

    return score


@solver
def unlearner(name: str, **options: Any) -> Solver:
    """Run an installed unlearner.

    Args:
        name: Name of the unlearner.
        options: Options of the unlearner; the others are those of its entry in the manifest, or its defaults.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        record = await anyio.to_thread.run_sync(_record, name, options, dict(state.metadata))
        if record.status != "done":
            raise UnlearnBenchError(f"{record.status.replace('_', ' ')}: {record.reason}")
        state.metadata.update(sample_facts(record))
        state.output = ModelOutput.from_content(model="none", content=outcome(record))
        return state

    return solve


def _registered(name: str) -> Any:
    """Register an unlearner as the solver with its name."""

    @solver(name)
    def method(**options: Any) -> Solver:
        return unlearner(name, **{key: _number(value) for key, value in options.items()})

    return method


def _number(value: Any) -> Any:
    """Return a solver argument as a number if it is one, since YAML takes 1e-3, without a point, for text."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value) else value


SOLVERS = {name: _registered(name) for name in names("unlearners")}


def _record(name: str, options: dict[str, Any], sample: dict[str, Any]) -> Record:
    """Run one cell, unless it is done already, and return its record."""
    with _ONE_AT_A_TIME:
        # The import stands here because listing solvers must not wait for torch.
        from unlearnbench.engine.engines.crew import device_precision
        from unlearnbench.engine.executor import finish
        from unlearnbench.engine.recording import plan_for

        resolved = resolve(Path(sample["manifest"]))
        method = chosen_method(resolved, name, options)
        references = tuple(found for found in resolved.methods if found.role == "reference")
        chosen = replace(resolved, methods=(*references, method))
        plan = plan_for(chosen, Path(sample["output"]), device_precision(sample["device"]))

        def wanted(cell: Cell) -> bool:
            return bool(cell.problem.slug == sample["problem"] and cell.seed == sample["seed"])

        plan = replace(plan, cells=tuple(cell for cell in plan.cells if wanted(cell)))
        return finish(plan, Path(sample["output"]), sample["device"])[-1]


def chosen_method(resolved: Resolved, name: str, options: dict[str, Any]) -> Method:
    """Return the unlearner that a solver stands for.

    Without options it is the manifest's entry of this name, so that its results are shared. Options change those of
    the entry, or the defaults if the manifest has no such entry.

    Raises:
        UnlearnBenchError: If an option does not fit.
    """
    entry = next((found for found in resolved.methods if name == found.label and found.role == "unlearner"), None)
    if entry is not None and not options:
        return entry
    plugin = find("unlearners", entry.name if entry else name)
    values, faults = resolve_options(plugin, {**(entry.options if entry else {}), **options})
    if faults:
        raise UnlearnBenchError("\n".join(faults.values()))
    label = " ".join([name, *(f"{key}={value}" for key, value in sorted(options.items()))])
    return Method(**used(plugin, values).unlabelled, label=label, role="unlearner")


def sample_facts(record: Record) -> dict[str, Any]:
    """Return what a log keeps of a record: values of the metrics, costs, and where the record's files are."""
    values = {name: metric.value for name, metric in record.metrics.items()}
    return {
        "values": {name: values[name] for name in (*HEADLINE, *values) if name in values},
        "method": record.method.model_dump(mode="json"),
        "image_passes": record.image_passes,
        "seconds": record.measured.seconds,
        "cell": record.cell,
        "files": {name: file.path for name, file in record.files.items()},
    }


def scored(values: dict[str, float | None], explanation: str) -> Score:
    """Return the score of a sample, in which a metric without a value is NaN.

    Inspect fails a whole log where one sample's score lacks a key that another's has, and leaves NaN out of its means.
    """
    return Score(
        value={name: math.nan if value is None else value for name, value in values.items()}, explanation=explanation
    )


def outcome(record: Record) -> str:
    """Return the three headline metrics in one line, in percent."""
    shown = zip(("FAe", "FPAe", "CAne"), HEADLINE, strict=True)
    values = ((short, record.value(name)) for short, name in shown)
    return ", ".join(f"{short} {'-' if value is None else f'{100 * value:.2f}'}" for short, value in values)
