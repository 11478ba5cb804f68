"""Published unlearning methods beyond the nine baselines of ERwP, each one function."""
