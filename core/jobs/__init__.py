"""Jobs: the store, the scheduler, the worker processes and what they write."""
