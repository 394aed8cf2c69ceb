"""Records as sequences, and sequences as batches."""
