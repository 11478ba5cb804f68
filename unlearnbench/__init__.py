"""A command-line benchmark of class unlearning with limited data."""

__version__ = "0.1.0"
