"""Snapshots of training: captured and restored in memory (state), kept crash-safe on disk (store, publish)."""
