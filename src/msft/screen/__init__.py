"""What a run shows while it runs: the live table, and the lines of a log. Commands and the Python API share it."""
