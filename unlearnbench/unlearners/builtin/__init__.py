"""ERwP and its nine baselines, registered through entry points like anyone else's."""
