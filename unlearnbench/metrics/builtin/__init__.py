"""The metrics that come with the benchmark, registered through entry points like anyone else's."""
