"""The configuration: its schema, and YAML reading with line numbers."""
