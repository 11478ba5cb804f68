"""What records add up to: loading, statistics, ranking and tables. Nothing here imports torch."""
