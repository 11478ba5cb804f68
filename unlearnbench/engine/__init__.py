"""Running a plan: stages as tasks, workers, progress, resuming and tuning."""
