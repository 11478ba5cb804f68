"""The trial of a metric: does it put each model of a known state where it belongs?"""

from __future__ import annotations

import copy
import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from unlearnbench.metrics.compute import Material, judge
from unlearnbench.metrics.feature_writer import write_features
from unlearnbench.metrics.features import open_features
from unlearnbench.metrics.measurement import Costs, References
from unlearnbench.metrics.metric_record import MetricRecord
from unlearnbench.metrics.standard import standard_metrics
from unlearnbench.terms import POSITIONS
from unlearnbench.unlearners.task import UnlearningTask
from unlearnbench.unlearners.toy_problem import FORGET_CLASSES, NUM_CLASSES, SmallProblem, small_problem

from .models import HEAD_CONTROLS, OTHER_FDR, PROJECTION, RANDOM, control_models, fdr_model, original_model

# By seed and model, the metrics that have a value.
Values = dict[int, dict[str, dict[str, float]]]
# By seed and model, what a record holds of each metric.
Judged = dict[int, dict[str, dict[str, MetricRecord]]]
Method = Callable[[nn.Module, UnlearningTask], nn.Module]
# A model belongs to the reference that is nearer.
HALF = 0.5
SEEDS = (0, 1, 2, 3, 4)
DISTANCE = "largest |position|"


@dataclass(frozen=True)
class Trial:
    """Where a metric puts the models.

    Attributes:
        metric: Label of the metric.
        original: Original's mean value.
        fdr: FDR's mean value.
        places: By model, the mean over seeds of (value - FDR's) / (Original's - FDR's): 0 is FDR, 1 is Original.
        tells: Whether Original lies on one and the same side of both FDR models in every seed.
    """

    metric: str
    original: float
    fdr: float
    places: Mapping[str, float]
    tells: bool

    @property
    def misplaced(self) -> list[str]:
        """Models that the metric puts where they do not belong; there is no place without two references apart."""
        if not self.tells:
            return []
        at_original = [name for name in HEAD_CONTROLS if self.places[name] <= HALF]
        # What was cut from the last features alone is not what retraining leaves, on whichever side of it they lie.
        at_fdr = [PROJECTION] if abs(self.places[PROJECTION]) <= HALF else []
        away = [OTHER_FDR] if abs(self.places[OTHER_FDR]) > HALF else []
        # A ruined network is below FDR or, where a metric is a distance from FDR, farther from it than Original is.
        whole = [RANDOM] if -HALF <= self.places[RANDOM] <= 1 + HALF else []
        return [*at_original, *at_fdr, *away, *whole]

    @property
    def verdict(self) -> str:
        """What the trial says of the metric."""
        if not self.tells:
            return "does not tell Original from FDR"
        return f"misplaces {', '.join(self.misplaced)}" if self.misplaced else "places all"

    @property
    def flags_the_head(self) -> bool:
        """Whether a network whose features are untouched lies where Original lies."""
        return self.tells and not set(self.misplaced) & set(HEAD_CONTROLS)


def judged_models(seeds: tuple[int, ...] = SEEDS, methods: Mapping[str, Method] | None = None) -> Judged:
    """Train the models of each seed and return all standard metrics of them.

    Args:
        seeds: Seeds, each with an original, an FDR and limited data of its own.
        methods: Unlearners to judge beside the controls, by name.
    """
    problem = small_problem()
    with tempfile.TemporaryDirectory(prefix="controls-") as folder:
        return {seed: _judged_seed(problem, seed, methods or {}, Path(folder)) for seed in seeds}


def _judged_seed(
    problem: SmallProblem, seed: int, methods: Mapping[str, Method], folder: Path
) -> dict[str, dict[str, MetricRecord]]:
    original, fdr = original_model(problem, seed), fdr_model(problem, seed)
    models = {"original": original, "fdr": fdr, **control_models(problem, original, seed)}
    models |= {name: method(copy.deepcopy(original), problem.task(seed)) for name, method in methods.items()}
    costs = Costs({"forget": 0, "retain": 1}, {"forget": 0, "retain": 1})
    with ExitStack() as opened:
        files = {
            name: opened.enter_context(open_features(extracted(folder / f"{seed}-{number}", model, problem, seed)))
            for number, (name, model) in enumerate(models.items())
        }
        references = References(files["original"], files["fdr"])
        return {name: judge(standard_metrics(), Material(file, references, costs)) for name, file in files.items()}


def known_values(judged: Judged) -> Values:
    """Return the metrics that have a value, by seed and model."""
    return {
        seed: {name: _with_distance(metrics) for name, metrics in models.items()} for seed, models in judged.items()
    }


def _with_distance(metrics: Mapping[str, MetricRecord]) -> dict[str, float]:
    """Return the values of a model, and what the ranking orders by: the largest |position| over the views."""
    values = {label: metric.value for label, metric in metrics.items() if metric.value is not None}
    return {**values, DISTANCE: max(abs(values[label]) for label in POSITIONS.values())}


def extracted(path: Path, model: nn.Module, problem: SmallProblem, seed: int = 0) -> Path:
    """Write the feature file of a model and return its path."""
    data = problem.data
    limited = data.limited_positions((14,) * NUM_CLASSES, seed)
    attributes = {
        "model": path.name,
        "dataset": "digits",
        "dataset_revision": "1",
        "num_classes": NUM_CLASSES,
        "forget_classes": FORGET_CLASSES,
        "seed": seed,
    }
    write_features(path, model, (data.test, data.test_part.ids), (data.train, data.train_part.ids), limited, attributes)
    return path


def trials(values: Values) -> list[Trial]:
    """Return the trial of each metric that all models have in all seeds."""
    every = [metrics for models in values.values() for metrics in models.values()]
    return [_trial(label, values) for label in every[0] if all(label in metrics for metrics in every)]


def _trial(metric: str, values: Values) -> Trial:
    def mean(model: str) -> float:
        return statistics.fmean(models[model][metric] for models in values.values())

    original, fdr = mean("original"), mean("fdr")
    differences = [
        models["original"][metric] - models[other][metric] for models in values.values() for other in ("fdr", OTHER_FDR)
    ]
    tells = min(differences) > 0 or max(differences) < 0
    span = original - fdr
    names = (*HEAD_CONTROLS, PROJECTION, OTHER_FDR, RANDOM)
    places = {name: (mean(name) - fdr) / span if span else 0.0 for name in names}
    return Trial(metric, original, fdr, places, tells)
