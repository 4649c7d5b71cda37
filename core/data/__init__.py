"""Data: files become standard rows. Nothing here imports torch.

A row's way: `read` takes it from a file, `detection` finds its form (`forms`), `conversion` gives
it a standard form or says why not, `prepare` writes it, `pipeline` does the steps to it, `registry`
finds it again. `drafts` are rows that a model writes.
"""
