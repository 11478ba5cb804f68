"""What rows add up to beside their table: the stages of a network, and unlearners over all problems."""
