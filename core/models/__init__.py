"""Models: where they come from and what they run on."""
