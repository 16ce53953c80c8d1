"""What a run has to say: summary, tables, figures, the page. Reads run folders only; no torch."""
