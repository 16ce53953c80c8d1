"""Durable file operations and the clock. Standard library only."""
