"""The field's terms: the short and long names of the metrics that rank, and of the reference models."""

from __future__ import annotations

# The metrics that rank, by the names that the paper gives them, in the paper's order.
SHORT = {"FAe": "forget_accuracy", "FPAe": "forget_prototype_accuracy", "CAne": "retain_accuracy"}

HEADLINE = tuple(SHORT.values())

REFERENCES = {"original": "Original", "fdr": "FDR"}

# Shares of images and differences of such: shown in percent. Any other metric is shown as the number that it is.
SHARES = frozenset(
    {
        "forget_accuracy",
        "forget_prototype_accuracy",
        "retain_accuracy",
        "retain_prototype_accuracy",
        "probe_recovery",
        "forget_neighbour_accuracy",
        "few_shot_relearning",
        "near_class_gap",
        "membership_inference",
        "zeroed_accuracy",
    }
)
