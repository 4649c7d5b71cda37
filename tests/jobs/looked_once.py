"""Looks for a package when it is imported, and never again; as transformers does."""

import importlib.util

FOUND = importlib.util.find_spec("added_meanwhile") is not None
