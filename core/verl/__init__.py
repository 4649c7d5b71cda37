"""PPO with a critic, which TRL has not: a job folder for verl on a Ray cluster.

Tunesmith writes the folder and checks it; it never runs it. `settings` says a run in verl's own
words, `job` writes the folder, `check` holds the words against verl's own config, `scoring` is what
runs on the cluster to reward answers.
"""
