"""Networks: building, training, weights and batches."""
