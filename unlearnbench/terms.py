"""The field's terms: the short and long names of the metrics that rank, and of the reference models."""

from __future__ import annotations

# These metrics rank, under the names and in the order that the paper gives them.
SHORT = {"FAe": "forget_accuracy", "FPAe": "forget_prototype_accuracy", "CAne": "retain_accuracy"}

HEADLINE = tuple(SHORT.values())

# The views of the last stage's features, each with a position between FDR and Original.
VIEWS = ("prototype", "neighbours", "probe")
POSITIONS = {view: f"position view={view}" for view in VIEWS}
VIEW_METRICS = {
    "prototype": "forget_prototype_accuracy",
    "neighbours": "forget_view_accuracy view=neighbours",
    "probe": "forget_view_accuracy view=probe",
}

# Methods that only seem to forget: their rows show what the other numbers are worth, and have no rank.
CONTROLS = frozenset({"wd", "head_distillation"})

# The name of a method that was run elsewhere, of which only the weights are judged.
JUDGED = "judged"

REFERENCES = {"original": "Original", "fdr": "FDR"}

# These metrics are shares of images or differences of shares, shown in percent; all others are shown as they are.
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
        "masked_retain_accuracy",
        "forget_view_accuracy",
        "layer_prototype_gap",
        "layer_probe_recovery",
        "relative_verdict",
        "average_gap",
        "rounding_recovery",
        "pruning_recovery",
        "fine_tuning_recovery",
    }
)

# These of them are differences, which may be below 0.
DIFFERENCES = frozenset(
    {
        "probe_recovery",
        "near_class_gap",
        "membership_inference",
        "layer_prototype_gap",
        "layer_probe_recovery",
        "relative_verdict",
        "rounding_recovery",
        "pruning_recovery",
    }
)
