"""The commands, one file for each group. `add` declares its arguments, `run_*` does the work.

A command imports what it needs inside, so that the others start at once.
"""
