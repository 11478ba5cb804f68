"""The figures of the paper, drawn from the records of its experiments."""
