"""Data: sources, the order of examples, and what a picture goes through."""
