"""Scores of a model on validation and test items."""
