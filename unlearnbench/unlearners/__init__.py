"""The unlearners of the paper."""
