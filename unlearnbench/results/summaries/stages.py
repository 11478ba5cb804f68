"""What is left of the forget classes at each stage of the network, for each method of a problem."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unlearnbench.metrics.metric_record import MetricRecord
from unlearnbench.results.rows import Row


@dataclass(frozen=True)
class StageMetric:
    """A metric that has a value at each stage.

    Attributes:
        metric: Its label in a record.
        title: What its values are, in a few words.
        is_gap: Whether the values are differences to FDR, shown in points around 0; otherwise they are similarities
            of at most 1.
    """

    metric: str
    title: str
    is_gap: bool

    def text(self, value: float | None) -> str:
        """Return a value as text: points with a sign, or a similarity; "-" if there is none."""
        if value is None:
            return "-"
        text = f"{100 * value:+.1f}" if self.is_gap else f"{value:.2f}"
        # What rounds to 0 has no sign.
        return text if float(text) else text.lstrip("+-")


STAGE_METRICS = (
    StageMetric("layer_prototype_gap", "FPAe less FDR's", is_gap=True),
    StageMetric("layer_probe_recovery", "probe less FDR's", is_gap=True),
    StageMetric("layer_cka reference=original images=forget", "CKA to Original", is_gap=False),
    StageMetric("layer_cka reference=fdr images=forget", "CKA to FDR", is_gap=False),
)

STAGE_LEGEND = (
    "From left to right the stages are those that an image passes, the last one being the classifier's input. FPAe and "
    "the balanced accuracy of a linear probe are those of the forget classes at each stage, less FDR's with the same "
    "seed: above 0 the stage still knows them, below 0 it is damaged. CKA says how alike the features of the forget "
    "images are to Original's and to FDR's, 1 being the same up to rotation and scale. Means over seeds."
)


@dataclass(frozen=True)
class StageMap:
    """The means over seeds of each metric at each stage.

    Attributes:
        stages: Names of the stages, from the image to the classifier.
        rows: Rows that have a value, in the order of the table.
        values: By metric, the mean of each row at each stage; None where a row has none.
    """

    stages: tuple[str, ...]
    rows: tuple[Row, ...]
    values: Mapping[StageMetric, tuple[tuple[float | None, ...], ...]]

    @property
    def largest_gap(self) -> float:
        """Largest distance from FDR, a fraction, but at least 0.05, so that noise does not take on full colour."""
        gaps = [value for metric, rows in self.values.items() if metric.is_gap for row in rows for value in row]
        return max([0.05, *(abs(value) for value in gaps if value is not None)])


def stage_map(rows: Sequence[Row]) -> StageMap | None:
    """Return the map of a problem's rows, or None if no unlearner among them was judged at the stages."""
    stages = next((found for row in rows for found in _stages_of(row)), ())
    if not stages:
        return None
    every = {row.label: {one: _means(row, one, stages) for one in STAGE_METRICS} for row in rows}
    shown = [row for row in rows if any(value is not None for means in every[row.label].values() for value in means)]
    if all(row.is_reference for row in shown):
        return None
    return StageMap(stages, tuple(shown), {one: tuple(every[row.label][one] for row in shown) for one in STAGE_METRICS})


def _stages_of(row: Row) -> list[tuple[str, ...]]:
    """Return the names of the stages that each of a row's records has."""
    found = (record.metrics.get(one.metric) for record in row.done for one in STAGE_METRICS)
    return [names for metric in found if metric is not None and (names := _stages(metric))]


def _stages(metric: MetricRecord) -> tuple[str, ...]:
    """Return the names of a metric's stages; records come from anywhere, and details have no schema."""
    names, by_stage = metric.details.get("stages"), metric.details.get("by_stage")
    if not isinstance(names, list) or not isinstance(by_stage, dict):
        return ()
    return tuple(name for name in names if isinstance(name, str) and name in by_stage)


def _means(row: Row, shown: StageMetric, stages: Sequence[str]) -> tuple[float | None, ...]:
    found = [record.metrics[shown.metric] for record in row.done if shown.metric in record.metrics]
    found = [metric for metric in found if _stages(metric) == tuple(stages)]
    return tuple(_mean([_value(metric.details["by_stage"][stage]) for metric in found]) for stage in stages)


def _value(found: Any) -> float | None:
    """Return the value of one stage: a number, or the judged model's accuracy less FDR's."""
    if isinstance(found, dict):
        judged, fdr = _value(found.get("judged")), _value(found.get("fdr"))
        return None if judged is None or fdr is None else judged - fdr
    return float(found) if isinstance(found, int | float) and math.isfinite(found) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None
