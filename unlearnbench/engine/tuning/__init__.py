"""Tuning: the options of every unlearner of a manifest, searched under one budget."""
