"""The unlearner example."""
