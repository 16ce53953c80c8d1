"""Training on a mixture, segment by segment, with torch. Knows no method."""
