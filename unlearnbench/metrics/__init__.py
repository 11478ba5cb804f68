"""Numbers computed from stored features."""
