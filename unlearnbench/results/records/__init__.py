"""Records: what one holds, its files, and those that make up a table."""
