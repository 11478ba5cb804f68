"""Data sets as readers of numpy arrays."""
