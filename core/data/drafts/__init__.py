"""New rows written by a model: drafts that a person accepts, edits or rejects.

`settings` says what is asked for, `prompting` words the requests and reads the replies, `rows`
checks the rows. `tasks` keeps them on disk, `run` does the long work, `review` is what a person
does with the drafts. A model answers through `core.remote.endpoint` or `core.worker.local_writer`.
"""
