"""Processes that start clean, and the run of an unlearner in one of its own."""
