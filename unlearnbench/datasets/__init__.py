"""Data sets: reading, splitting, storing, adding and fetching them."""
