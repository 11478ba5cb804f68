"""The metrics that come with the benchmark, plugged in by entry points like anyone's."""
