"""Tuning with equal budgets: the declared option ranges of every unlearner, searched with as many trials for each."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearnbench.datasets.held_out import without_test_images
from unlearnbench.engine.engines.crew import device_precision
from unlearnbench.engine.executor import finish
from unlearnbench.engine.processes.isolated import declared_ranges
from unlearnbench.engine.recording import plan_for
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.experiment.problem import Problem
from unlearnbench.experiment.reader import read_manifest
from unlearnbench.experiment.resolve import Resolved, resolve
from unlearnbench.registry.component import Method
from unlearnbench.registry.declare import Range, SearchSpace
from unlearnbench.registry.entry_points import find
from unlearnbench.registry.options import resolve_options
from unlearnbench.results.judgement import MOST_LOSS
from unlearnbench.results.ranking import rows_by_problem
from unlearnbench.results.record import Record
from unlearnbench.results.rows import Row
from unlearnbench.terms import HEADLINE

if TYPE_CHECKING:
    import optuna


HELD_OUT_EVERY = 5
FIRST_SEED = 1000
SCORE = (
    "score: FAe plus a thousandth of FPAe's distance from FDR's, as fractions; from 2 on CAne is not held, 10 is a "
    "failed trial; lower is better"
)
# This is worse than any unlearner that ran, which scores at most 1 for FAe and 1 for CAne.
FAILED = 10.0


@dataclass(frozen=True)
class Budget:
    """The budget of each unlearner.

    Attributes:
        trials: Number of settings to try, including the manifest's own.
        seeds: Number of seeds that each setting is run with.
        output: Output folder of the trials, which share reference models.
        device: Device as in `--device`.
    """

    trials: int
    seeds: int
    output: Path
    device: str = "auto"


@dataclass(frozen=True)
class Trial:
    """One setting of one unlearner.

    Attributes:
        label: Label of the unlearner.
        options: Options as the manifest would state them.
        score: Score of the setting, lower is better; see `score`.
    """

    label: str
    options: dict[str, Any]
    score: float


def tuned_file(path: Path) -> Path:
    """Return the path of the tuned manifest, beside the original so that relative paths in it still hold."""
    return path.with_name(f"{read_manifest(path).manifest().name}-tuned.toml")


def check_target(file: Path) -> None:
    """Check that the tuned manifest can be written, before hours are spent on trials.

    Raises:
        UnlearnBenchError: If the file exists already, or its folder cannot be written to.
    """
    if file.exists():
        raise UnlearnBenchError(f"{file}: is there already\n  Name another file with --to, or remove it")
    if not file.parent.is_dir():
        raise UnlearnBenchError(f"{file}: cannot be written: no folder {file.parent}\n  mkdir -p {file.parent}")
    if not os.access(file.parent, os.W_OK):
        raise UnlearnBenchError(f"{file}: cannot be written: Permission denied\n  Name another file with --to")


def tune(path: Path, budget: Budget, say: Callable[[str], None]) -> dict[str, Any]:
    """Search the options of every unlearner of a manifest and return the raw values of the tuned manifest.

    Trials are judged on a fifth of the training images and on seeds that the manifest does not use. The choice
    therefore depends neither on test images nor on what the final run draws.

    Raises:
        UnlearnBenchError: If optuna is missing, an unlearner has a matrix, or the manifest does without FDR.
        InvalidFileError: If the manifest has faults.
    """
    optuna = _optuna()
    resolved = resolve(path)
    manifest = resolved.manifest
    if manifest.references.fdr == "none":
        raise UnlearnBenchError(
            f'{path}: references.fdr: tune scores by the distance to FDR, and the manifest says "none"\n'
            '  Say fdr = "train", or give the path of a checkpoint'
        )
    for entry in manifest.unlearners:
        if entry.matrix:
            raise UnlearnBenchError(f"{path}: {entry.name} has a matrix; tune searches one setting for each entry")
    seeds = _other_seeds(manifest.seeds, budget.seeds)
    trial_problem = _trial_problem(resolved, seeds)
    raw = manifest.model_dump(mode="json", exclude_unset=True)
    say(SCORE)
    methods = [method for method in resolved.methods if method.role == "unlearner"]
    not_searched = []
    for index, method in enumerate(methods):
        entry = manifest.unlearners[index]
        declared = declared_ranges(method.name)
        ranges = {name: search for name, search in declared.items() if name not in entry.keep}
        if not ranges:
            not_searched.append(method.label)
            reason = "keeps all that could be searched" if declared else "declares no ranges"
            say(f"{method.label}: {reason}; its options stay")
            continue
        given = dict(entry.options)
        best = _search(optuna, trial_problem, method, given, ranges, budget, say)
        raw["unlearners"][index]["options"] = best.options
    raw["name"] = f"{manifest.name}-tuned"
    raw["tuning"] = {
        "trials": budget.trials,
        "seeds": list(seeds),
        "held_out_share": 1 / HELD_OUT_EVERY,
        "not_searched": not_searched,
    }
    return raw


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UnlearnBenchError("tune needs optuna\n  pip install 'unlearnbench[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _other_seeds(used: Iterable[int], number: int) -> tuple[int, ...]:
    taken = set(used)
    return tuple(itertools.islice((seed for seed in itertools.count(FIRST_SEED) if seed not in taken), number))


def _trial_problem(resolved: Resolved, seeds: tuple[int, ...]) -> Resolved:
    """Return the manifest on other seeds, with some training images in the place of the test images."""
    dataset = without_test_images(resolved.dataset, HELD_OUT_EVERY)

    def moved(problem: Problem) -> Problem:
        counts = zip(problem.limited_counts, dataset.info.train_counts, strict=True)
        return replace(problem, info=dataset.info, limited_counts=tuple(min(pair) for pair in counts))

    return replace(
        resolved,
        manifest=resolved.manifest.model_copy(
            update={"seeds": seeds, "name": f"{resolved.manifest.name}-trials", "evaluate_every": 0}
        ),
        dataset=dataset,
        problems=tuple(moved(problem) for problem in resolved.problems),
        metrics=tuple(metric for metric in resolved.metrics if metric.label in HEADLINE),
    )


def _search(
    optuna: Any,
    problem: Resolved,
    method: Method,
    given: dict[str, Any],
    ranges: Mapping[str, SearchSpace],
    budget: Budget,
    say: Callable[[str], None],
) -> Trial:
    """Return the best of an unlearner's trials, of which the manifest's own options are the first."""
    trials: list[Trial] = []

    def run(chosen: Mapping[str, Any]) -> float:
        options = {**given, **chosen}
        trials.append(Trial(method.label, options, _run(problem, method, options, len(trials), budget)))
        number = f"trial {len(trials)} of {budget.trials}"
        say(f"{method.label}: {number}: score {trials[-1].score:.4f} with {json.dumps(options)}")
        return trials[-1].score

    run({})
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(lambda trial: run(suggested(trial, ranges)), n_trials=budget.trials - 1)
    best = min(trials, key=lambda trial: trial.score)
    say(f"{method.label}: trial {1 + trials.index(best)} is the best")
    return best


def suggested(trial: optuna.Trial, ranges: Mapping[str, SearchSpace]) -> dict[str, Any]:
    """Return the values that a trial tries."""
    chosen: dict[str, Any] = {}
    for name, search in ranges.items():
        if not isinstance(search, Range):
            chosen[name] = trial.suggest_categorical(name, search)
        elif isinstance(search.lowest, int) and isinstance(search.highest, int):
            chosen[name] = trial.suggest_int(name, search.lowest, search.highest, log=search.log)
        else:
            # Four digits are enough for a reader, and rounding makes the manifest state exactly what was tried.
            chosen[name] = float(f"{trial.suggest_float(name, search.lowest, search.highest, log=search.log):.4g}")
    return chosen


def _run(problem: Resolved, method: Method, options: dict[str, Any], number: int, budget: Budget) -> float:
    values, faults = resolve_options(find("unlearners", method.name), options)
    if faults:
        raise UnlearnBenchError("\n".join([f"{method.label}: its ranges do not fit its options", *faults.values()]))
    label = f"{method.label} {number}"
    references = tuple(reference for reference in problem.methods if reference.role == "reference")
    tried = replace(method, options=values, label=label)
    trial = replace(problem, methods=(*references, tried))
    plan = plan_for(trial, budget.output, device_precision(budget.device))
    records = finish(plan, budget.output, budget.device)
    return score(records, label)


def score(records: Iterable[Record], label: str) -> float:
    """Return the quality of an unlearner by the ranking rule as one number; lower is better.

    Below 2, CAne is kept, and the number is FAe plus a thousandth of the distance of FPAe from FDR's. From 2 on, CAne
    is not kept, and the number is 2 plus what is missing. It is 10 if a cell failed. Several problems give the mean.
    """
    found = [_score_of_problem({row.method.label: row for row in rows}, label) for rows in rows_by_problem(records)]
    return sum(found) / len(found)


def _score_of_problem(rows: Mapping[str, Row], label: str) -> float:
    method, original, fdr = rows[label], rows["original"], rows["fdr"]
    means = {name: (method.mean(name), original.mean(name), fdr.mean(name)) for name in HEADLINE}
    if len(method.done) < len(method.records) or any(None in values for values in means.values()):
        return FAILED
    forget, prototype, retain = ([value or 0.0 for value in means[name]] for name in HEADLINE)
    lost = retain[1] - retain[0]
    if lost > MOST_LOSS + 1e-9:
        return 2.0 + lost
    return forget[0] + abs(prototype[0] - prototype[2]) / 1000
