"""New rows written by a model: drafts that a person accepts, edits or rejects.

`settings` says what is asked for, `asking` words the requests, `endpoint` and `local` answer
them, `reply` reads the answers and `draft_rows` checks the rows. `tasks` and `draft_log` keep them
on disk, `run` does the long work, `review` is what a person does with the drafts. Nothing here
imports torch but the functions of `local`.
"""
