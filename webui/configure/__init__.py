"""Configure: one file for each part of the tab; `tab` is the frame."""
