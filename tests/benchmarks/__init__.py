"""Speed benchmarks, as ratios of two things measured in one run: `python -m tests.benchmarks [NAME...]`."""
