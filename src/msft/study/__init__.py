"""Comparisons and studies: many runs of one job, and what they say together (design 5)."""
