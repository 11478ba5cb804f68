"""The experiment that a manifest describes: its text, its faults, what it means here, and the plan. No torch."""
