"""The experiment that a manifest describes: its text, its faults, its meaning here, and the plan. No torch."""
