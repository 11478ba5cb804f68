"""Methods that move or project features."""
