"""Metrics that need the model itself, for which a manifest has to ask."""
