"""Unlearning: the task that an unlearner is given, and the contract that it keeps."""
