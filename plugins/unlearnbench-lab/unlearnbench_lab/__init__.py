"""Unlearners of this project's own, for few images of each class."""
