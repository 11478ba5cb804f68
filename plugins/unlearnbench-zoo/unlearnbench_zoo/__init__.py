"""Published unlearners beyond the nine baselines of ERwP, each as one function."""
