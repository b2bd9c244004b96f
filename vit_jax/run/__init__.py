"""The run directory: checkpoints, metrics and JSON files."""
