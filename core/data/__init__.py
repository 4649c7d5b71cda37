"""Data: files become standard rows, standard rows become tokens. Nothing here imports torch.

A row's way: `readers` takes it from a file, `formats` finds its form, `conversion` gives it a
standard form or says why not, `prepare` splits and writes it, `registry` finds it again,
`tokenize` shows it to the trainer and to the preview in exactly the same way.
"""
