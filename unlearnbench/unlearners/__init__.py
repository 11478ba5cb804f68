"""Unlearning: the task that a method is given, and the contract that it keeps."""
