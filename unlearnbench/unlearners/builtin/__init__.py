"""ERwP and its nine baselines, plugged in by entry points like anyone's."""
