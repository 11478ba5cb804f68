"""Data sets in parquet files, as the Hugging Face hub has them."""
