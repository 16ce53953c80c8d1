"""One run's life: from a configuration to a finished model."""
