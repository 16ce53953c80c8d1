"""Comparisons and studies: many runs of one job, analysed together (design 5)."""
