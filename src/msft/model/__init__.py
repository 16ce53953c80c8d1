"""Third-party models: found, checked, loaded, and made to do less work for the same results."""
