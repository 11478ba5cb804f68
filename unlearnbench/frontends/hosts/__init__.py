"""What the harnesses that host the benchmark need: logs for Inspect."""
