"""Rows, formats, splits, tokens and order: from data sets to instances. No torch."""
