"""The Python environment: made, kept and told of. Standard library only."""
