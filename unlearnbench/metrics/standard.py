"""The metrics that every record holds."""

from __future__ import annotations

import re
from typing import Any

from unlearnbench.errors import PluginError
from unlearnbench.registry.component import Metric, used
from unlearnbench.registry.entry_points import find
from unlearnbench.registry.options import resolve_options
from unlearnbench.terms import HEADLINE, VIEWS

# Every record holds these beside the headline metrics: name and non-default options. All need features alone.
STANDARD: tuple[tuple[str, dict[str, Any]], ...] = (
    ("forget_prototype_accuracy", {"prototypes": "limited"}),
    ("forget_prototype_accuracy", {"distance": "cosine"}),
    ("retain_prototype_accuracy", {}),
    ("normalised_gap", {}),
    ("probe_recovery", {"shots": 1}),
    ("probe_recovery", {"shots": 5}),
    ("probe_recovery", {"shots": 10}),
    ("probe_recovery", {}),
    ("forget_neighbour_accuracy", {}),
    ("forget_neighbour_accuracy", {"neighbours": 20, "distance": "cosine"}),
    ("few_shot_relearning", {}),
    ("linear_cka", {"reference": "original", "images": "forget"}),
    ("linear_cka", {"reference": "original", "images": "retain"}),
    ("linear_cka", {"reference": "fdr", "images": "forget"}),
    ("linear_cka", {"reference": "fdr", "images": "retain"}),
    ("prediction_matrix", {}),
    ("prediction_entropy", {}),
    ("near_class_gap", {}),
    ("membership_inference", {}),
    ("js_divergence", {"images": "forget"}),
    ("js_divergence", {"images": "retain"}),
    ("speed_up", {}),
    ("masked_retain_accuracy", {}),
    ("forget_view_accuracy", {"view": "neighbours"}),
    ("forget_view_accuracy", {"view": "probe"}),
    *(("position", {"view": view}) for view in VIEWS),
    ("layer_prototype_gap", {}),
    ("layer_probe_recovery", {}),
    ("layer_cka", {"reference": "original", "images": "forget"}),
    ("layer_cka", {"reference": "original", "images": "retain"}),
    ("layer_cka", {"reference": "fdr", "images": "forget"}),
    ("layer_cka", {"reference": "fdr", "images": "retain"}),
    ("relative_verdict", {}),
    ("representation_unlearning_score", {}),
    ("adaptive_unlearning_score", {}),
    ("average_gap", {}),
    ("tug_of_war", {}),
    ("retain_output_scatter", {}),
    ("retain_output_entropy", {}),
)


def variant_label(label: str, setting: dict[str, Any]) -> str:
    """Return a label with the options that distinguish it from others, such as "probe_recovery shots=5"."""
    return " ".join([label, *(f"{key}={_plain(value)}" for key, value in setting.items())])


def _plain(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"[^A-Za-z0-9._+-]+", ",", text).strip(",")


def standard_metrics() -> tuple[Metric, ...]:
    """Return the metrics that every record holds, headline metrics first.

    Raises:
        PluginError: If one of them is not installed.
    """
    found = []
    for name, given in [*((label, dict[str, Any]()) for label in HEADLINE), *STANDARD]:
        found.append(metric(name, given, variant_label(name, given)))
    return tuple(found)


def metric(name: str, given: dict[str, Any], label: str) -> Metric:
    """Return an installed metric with options.

    Raises:
        PluginError: If the metric is not installed or does not take the options.
    """
    plugin = find("metrics", name)
    options, faults = resolve_options(plugin, given)
    if faults:
        raise PluginError("\n".join(faults.values()))
    return Metric(**used(plugin, options).unlabelled, label=label)
