"""Tuning with equal budgets: the declared option ranges of every unlearner, searched with as many trials for each."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unlearnbench.engine.engines.crew import device_precision
from unlearnbench.engine.executor import finish
from unlearnbench.engine.processes.isolated import declared_ranges
from unlearnbench.engine.recording import plan_for
from unlearnbench.engine.tuning.score import LIMITED_SCORE, ORACLE_SCORE, limited_score, oracle_score
from unlearnbench.engine.tuning.trials import HELD_OUT_EVERY, LIMITED_HELD_OUT_EVERY, limited_trials, oracle_trial
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.experiment.reader import read_manifest
from unlearnbench.experiment.resolve import Resolved, resolve
from unlearnbench.registry.component import Method
from unlearnbench.registry.declare import Range, SearchSpace
from unlearnbench.registry.entry_points import find
from unlearnbench.registry.options import decisive_options, resolve_options
from unlearnbench.results.records.record import Record

if TYPE_CHECKING:
    import optuna

# Runs settings of a method and returns the score of each.
Judge = Callable[[Sequence[Method]], list[float]]

FIRST_SEED = 1000
# So many settings run at a time: to begin a run takes longer than a small method, and the search learns between rounds.
ROUND = 5
Division = Literal["self-tuned", "oracle-tuned"]


@dataclass(frozen=True)
class Budget:
    """The budget of each unlearner.

    Attributes:
        trials: Number of settings to try, including the manifest's own.
        seeds: Number of seeds that each setting is run with.
        output: Output folder of the trials, which share reference models.
        device: Device as in `--device`.
        division: What trials are judged by: `self-tuned` by limited images alone, of which a tenth is held out;
            `oracle-tuned` by FDR, on a fifth of all training images.
    """

    trials: int
    seeds: int
    output: Path
    device: str = "auto"
    division: Division = "oracle-tuned"


@dataclass(frozen=True)
class Trial:
    """One setting of one unlearner.

    Attributes:
        label: Label of the unlearner.
        options: Options as the manifest would state them.
        score: Score of the setting, lower is better; see `engine/tuning/score.py`.
    """

    label: str
    options: dict[str, Any]
    score: float


def tuned_file(path: Path) -> Path:
    """Return the path of the tuned manifest, beside the original."""
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

    Trials are judged on training images, as `Budget.division` says, and on seeds that the manifest does not use. The
    choice therefore depends neither on test images nor on what the final run draws.

    Raises:
        UnlearnBenchError: If optuna is missing, an unlearner has a matrix, the manifest does without the FDR that
            trials are judged by, has a federation, or has a class with too few limited images to hold one out.
        InvalidFileError: If the manifest has faults.
    """
    optuna = _optuna()
    resolved = resolve(path)
    manifest = resolved.manifest
    if manifest.references.fdr == "none" and budget.division == "oracle-tuned":
        raise UnlearnBenchError(
            f'{path}: references.fdr: trials are judged by the distance to FDR, and the manifest says "none"\n'
            "  Use --division self-tuned, which needs no FDR"
        )
    if manifest.federation is not None:
        raise UnlearnBenchError(
            f"{path}: federation: trials hold images out of one pool, which the parties do not have\n"
            "  Tune the manifest without [federation], and give its options to this one"
        )
    for entry in manifest.unlearners:
        if entry.matrix:
            raise UnlearnBenchError(f"{path}: {entry.name} has a matrix; tune searches one setting for each entry")
    seeds = _other_seeds(manifest.seeds, budget.seeds)
    judge = _judge(resolved, seeds, budget)
    raw = manifest.model_dump(mode="json", exclude_unset=True)
    say(ORACLE_SCORE if budget.division == "oracle-tuned" else LIMITED_SCORE)
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
        best = _search(optuna, judge, method, given, ranges, budget, say)
        raw["unlearners"][index]["options"] = best.options
    raw["name"] = f"{manifest.name}-tuned"
    raw["tuning"] = {
        "division": budget.division,
        "trials": budget.trials,
        "seeds": list(seeds),
        "held_out_share": 1 / (HELD_OUT_EVERY if budget.division == "oracle-tuned" else LIMITED_HELD_OUT_EVERY),
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


def _judge(resolved: Resolved, seeds: tuple[int, ...], budget: Budget) -> Judge:
    """Return the function that runs settings of a method and scores them."""
    if budget.division == "oracle-tuned":
        trial = oracle_trial(resolved, seeds)

        def by_fdr(methods: Sequence[Method]) -> list[float]:
            records = _run(trial, methods, budget)
            return [oracle_score(_of_method(records, method), method.label) for method in methods]

        return by_fdr
    problems = limited_trials(resolved, seeds)

    def by_limited(methods: Sequence[Method]) -> list[float]:
        found = [[record for trial in trials for record in _run(trial, methods, budget)] for trials in problems]
        return [limited_score([_of_method(records, one) for records in found], one.label) for one in methods]

    return by_limited


def _run(trial: Resolved, methods: Sequence[Method], budget: Budget) -> list[Record]:
    references = tuple(reference for reference in trial.methods if reference.role == "reference")
    plan = plan_for(replace(trial, methods=(*references, *methods)), budget.output, device_precision(budget.device))
    return finish(plan, budget.output, budget.device)


def _of_method(records: Iterable[Record], method: Method) -> list[Record]:
    """Return the records of a method and of the references."""
    return [record for record in records if record.method.label == method.label or record.method.role == "reference"]


def _search(
    optuna: Any,
    judge: Judge,
    method: Method,
    given: dict[str, Any],
    ranges: Mapping[str, SearchSpace],
    budget: Budget,
    say: Callable[[str], None],
) -> Trial:
    """Return the best of an unlearner's trials, of which the manifest's own options are the first."""
    trials: list[Trial] = []
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    while len(trials) < budget.trials:
        own: list[dict[str, Any]] = [] if trials else [given]
        asked = [study.ask() for _ in range(min(ROUND, budget.trials - len(trials)) - len(own))]
        settings = [*own, *({**given, **suggested(trial, ranges)} for trial in asked)]
        methods = [_with_options(method, options, len(trials) + place) for place, options in enumerate(settings)]
        scores = judge(methods)
        for options, score in zip(settings, scores, strict=True):
            trials.append(Trial(method.label, options, score))
            number = f"trial {len(trials)} of {budget.trials}"
            say(f"{method.label}: {number}: score {score:.4f} with {json.dumps(options)}")
        for trial, score in zip(asked, scores[len(own) :], strict=True):
            study.tell(trial, score)
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


def _with_options(method: Method, options: dict[str, Any], number: int) -> Method:
    """Return a method with the options of a trial, under a label of its own."""
    plugin = find("unlearners", method.name)
    values, faults = resolve_options(plugin, options)
    if faults:
        raise UnlearnBenchError("\n".join([f"{method.label}: its ranges do not fit its options", *faults.values()]))
    return replace(method, options=decisive_options(plugin, values), label=f"{method.label} {number}")
