"""The data sets that come with the benchmark, registered through entry points like anyone else's."""
