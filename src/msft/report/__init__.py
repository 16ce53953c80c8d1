"""Reports of a run: summary, tables, figures, the page. Reads run folders only; no torch."""
