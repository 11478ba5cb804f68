"""Image classifiers that the benchmark brings along."""
