"""Methods that learn from a teacher's outputs."""
