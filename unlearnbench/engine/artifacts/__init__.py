"""The models and features that a cell needs, made or found in the store: Original, FDR, and the unlearned model."""
