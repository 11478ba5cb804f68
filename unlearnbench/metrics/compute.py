"""Computation of the metrics: from the contents of the store to the metrics of a record."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from unlearnbench.errors import MetricError, PluginError, UnlearnBenchError
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import Costs, Measurement, Missing, References
from unlearnbench.metrics.metric_record import MetricRecord, packed
from unlearnbench.registry.component import Metric
from unlearnbench.registry.entry_points import find
from unlearnbench.registry.options import call_arguments

ONLY_IN_A_RUN = Missing("only a run has the model; put the metric into the manifest and run it")


@dataclass(frozen=True)
class Material:
    """What metrics can ask for.

    Attributes:
        features: The judged model's features.
        references: Features of Original and FDR of the same problem and seed.
        costs: Image passes of the judged model and of FDR.
        model: The judged model itself, as a `LiveModel`.
    """

    features: FeatureFile
    references: References | Missing
    costs: Costs | Missing
    model: Any = ONLY_IN_A_RUN


NEEDS = tuple(field.name for field in dataclasses.fields(Material))


def needs(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a metric's positional arguments, which say what it is to be given.

    Raises:
        PluginError: If one of them is not something that a metric can ask for.
    """
    parameters = inspect.signature(function).parameters.values()
    named = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
    for name in named:
        if name not in NEEDS:
            raise PluginError(f"the metric asks for {name!r}; there are {', '.join(NEEDS)}")
    return named


def judge(metrics: Iterable[Metric], material: Material) -> dict[str, MetricRecord]:
    """Return the record of each metric, by label; for one that cannot be computed it holds the reason."""
    return {metric.label: metric_record(metric, material) for metric in metrics}


def metric_record(metric: Metric, material: Material) -> MetricRecord:
    """Compute one metric."""
    try:
        value = _value(find("metrics", metric.name).load(), metric, material)
    # A metric may be foreign code, and one that fails must not cost the others.
    except Exception as error:
        kind = "" if isinstance(error, UnlearnBenchError) else f"{type(error).__name__}: "
        return MetricRecord(
            **metric.facts, status="failed", value=None, reason=kind + (str(error).strip() or "no reason")
        )
    return MetricRecord(
        **metric.facts,
        status="done",
        value=float(value),
        reason=None,
        details=value.details,
        hits=None if value.hits is None else packed(value.hits),
    )


def _value(function: Callable[..., Any], metric: Metric, material: Material) -> Measurement:
    given = []
    for name in needs(function):
        found = getattr(material, name)
        if isinstance(found, Missing):
            raise MetricError(f"no {name}: {found.reason}")
        given.append(found)
    with np.errstate(all="ignore"):
        value = function(*given, **_arguments(function, json.dumps(metric.options)))
    measurement = value if isinstance(value, Measurement) else Measurement(float(value))
    if not math.isfinite(measurement):
        raise MetricError(f"the value is not finite ({float(measurement)})")
    if measurement.hits is not None and len(measurement.hits) == 0:
        raise MetricError("it is a share of no test image")
    try:
        json.dumps(measurement.details, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MetricError(f"the details are no JSON values: {error}") from error
    return measurement


@functools.cache
def _arguments(function: Callable[..., Any], options: str) -> dict[str, Any]:
    return call_arguments(function, json.loads(options))
