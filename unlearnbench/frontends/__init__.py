"""The front ends of the benchmark: the command line, pytest, Inspect and the doctor. They parse, call and print."""
