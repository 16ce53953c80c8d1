"""Training on a mixture, segment by segment, with torch. Independent of the methods."""
