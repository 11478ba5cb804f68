"""The figures of finished runs, drawn from records and stored features."""
