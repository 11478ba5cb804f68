"""What becomes of records: loading, statistics, ranking and tables. Nothing here imports torch."""
