"""The feature file, and every number that is computed from it."""
