"""The unlearners, each one function."""
