"""The commands for a model in use: they parse, call and print."""
