"""Models whose state is known, by which the metrics are judged: `python -m tests.controls` writes the page."""
