"""Scores of a model on validation and test items, and the micro-batches that every forward pass is cut into."""
