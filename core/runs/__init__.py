"""What a person asks of runs: start, resume, extend, look up, compare."""
