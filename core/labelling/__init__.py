"""Texts that a classifier has labelled: those it is unsure of are labelled by a person and become
rows to learn from."""
