"""What the harnesses that host the benchmark need: logs for Inspect, and expectations as tests for pytest."""
